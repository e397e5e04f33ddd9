#pragma once
// What an exact run adds up, step by step, in fp64: its result's sums, and what a snapshot holds.
#include <vector>

#include "run/exact.h"
#include "run/ledger.h"

namespace hesper {

/// Sums over windows of one curvature's matrix, fp64, in the order of the ledger.
struct MatrixSum {
  Curvature kind;
  Tensor total;             // (n, n)
  Tensor squares;           // (n, n) with full errors
  double square_norms = 0;  // sum_s |H_s|_F^2

  MatrixSum(Curvature kind, int64_t n, bool full) : kind(kind), total(at::zeros({n, n}, at::kDouble)) {
    if (full) squares = at::zeros({n, n}, at::kDouble);
  }
  /// rows: rows [begin, ...) of one window's matrix.
  void add(const Tensor& rows, int64_t begin);
  /// The block of b windows. The sums are used up.
  ExactBlock finish(int64_t b, bool symmetric);
};

struct ExactTotals {
  int64_t done = 0;  // steps: a window of a unit each
  std::vector<MatrixSum> sums;
  Tensor gradient, losses;  // (n) summed over windows; (b)
  Tensor columns, sample;   // (c) columns of window 0 that are repeated in fp64; those rows of its matrix (c, n)
  double seconds = 0, primal_seconds = 0;

  ExactTotals(const ExactOptions& options, int64_t n, int64_t b);

  /// A batch's primal pass: losses (windows) and gradient (n). Throws as require_finite does.
  void add(const Unit& unit, const Tensor& batch_losses, const Tensor& batch_gradient);
  /// A step: rows [begin, ...) of a window's matrix of each kind.
  void add(const std::vector<Tensor>& rows, int64_t begin, int64_t window);

  RunState state(const Plan& plan) const;
  /// Throws std::runtime_error where `from` is of another size.
  void restore(const RunState& from);
};

}  // namespace hesper
