#pragma once
// What an exact run adds up, step by step, in fp64: its result's sums, and what a snapshot holds.
#include <vector>

#include "run/exact.h"
#include "run/ledger.h"

namespace hesper {

/// Sums over windows of one curvature's matrix, fp64, in the order of the ledger.
struct MatrixSum {
  Curvature kind;
  Tensor total;         // (n, n)
  Tensor squares;       // (n, n) with full errors
  Tensor square_norms;  // () sum_s |H_s|_F^2

  MatrixSum(Curvature kind, int64_t n, bool full)
      : kind(kind), total(at::zeros({n, n}, at::kDouble)), square_norms(at::zeros({}, at::kDouble)) {
    if (full) squares = at::zeros({n, n}, at::kDouble);
  }
  /// rows: rows [begin, ...) of one window's matrix.
  void add(const Tensor& rows, int64_t begin);
  /// The block of b windows. The sums are used up.
  ExactBlock finish(int64_t b, bool symmetric);
};

struct ExactTotals {
  std::vector<MatrixSum> matrices;
  Tensor gradient, losses;  // (n) summed over windows; (b)
  Tensor columns, sample;   // (c) columns of window 0 that are repeated in fp64; those rows of its matrix (c, n)
  Tensor primal_seconds;    // ()

  ExactTotals(const ExactOptions& options, int64_t n, int64_t b);

  /// A batch's primal pass: losses (windows) and gradient (n). Throws as require_finite does.
  void add(const Unit& unit, const Tensor& batch_losses, const Tensor& batch_gradient);
  /// A step: rows [begin, ...) of a window's matrix of each kind.
  void add(const std::vector<Tensor>& rows, int64_t begin, int64_t window);

  NamedTensors sums() const;
};

}  // namespace hesper
