#pragma once
// The forecast of a run from shapes alone, before anything is allocated: which pass, how many directions at once, and
// what each part will hold.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/program.h"
#include "ops/parameters.h"
#include "ops/selection.h"

namespace hesper {

enum class Pass { gram, two_pass };
std::string to_string(Pass pass);

struct PlanRequest {
  const Program* program;
  std::vector<std::vector<int64_t>> parameter_shapes;  // in parameter order
  std::vector<at::ScalarType> stored;                  // dtypes of the checkpoint
  const Selection* selection;
  int64_t windows = 1;                    // b
  int64_t batch = 1;                      // B: windows of one primal pass
  int64_t tokens = 2048;                  // T
  at::ScalarType precision = at::kFloat;  // tangents
  std::optional<at::ScalarType> primal;   // unset: fp64 where its forecast is under a quarter of the tangents' time
  std::optional<Pass> pass;               // unset: the planner chooses
  int64_t directions = 0;                 // K; 0: the planner chooses
  int64_t memory_limit = 0;               // bytes; 0: what is free
  int matrices = 1;                       // n x n sums kept: one a curvature, twice that with full errors
  bool measure_precision = true;          // a few columns of one window are repeated in fp64 at the end
  // Estimates: their directions are probes, not the selection's columns.
  int64_t columns = 0;  // directions of a window in the whole run; 0: one a selected weight
  int64_t carried = 0;  // entries of a direction; 0: all selected
  int64_t beside = 0;   // bytes of sums that the caller keeps
};

/// Bytes by part.
struct Memory {
  int64_t weights = 0;    // copies in working precision (mapped weights do not count), and the largest one in fp64
  int64_t tape = 0;       // what the primal pass leaves, in working precision
  int64_t primal = 0;     // the primal pass at its peak, the tape it is building included
  int64_t tangents = 0;   // residual stream and attention inputs of K directions; two-pass: what goes back reads
  int64_t head = 0;       // logits tiles of a tangent pass
  int64_t attention = 0;  // score tiles of a tangent pass
  int64_t result = 0;     // accumulators
  int64_t library = 0;    // LibTorch's and MKL's own, once products have run
  int64_t total() const { return weights + result + library + std::max(primal, tape + tangents + head + attention); }
};

struct Plan {
  Pass pass = Pass::gram;
  int64_t directions = 1;  // K: all n for the Gram pass
  int64_t batch = 1;
  at::ScalarType precision = at::kFloat, primal = at::kDouble;
  Memory memory;
  Memory check;  // the fp64 repeat of a few columns, after the rest has gone; zero when it is left out
  bool measure_precision = false;
  int64_t peak() const { return std::max(memory.total(), check.total()); }
  int64_t limit = 0;                           // bytes allowed
  int64_t units = 0;                           // (batch of windows, chunk of directions)
  double primal_flops = 0, tangent_flops = 0;  // of the whole run
};

/// Columns at a time in the fp64 repeat: it is short, and K columns keep K tangents of every block in fp64.
inline constexpr int64_t check_directions = 2;
/// Columns of one window that are repeated in fp64 for the precision error: max(4, n/16), at most n.
int64_t precision_columns(int64_t n);

/// Throws std::runtime_error with both numbers when the smallest plan does not fit, std::invalid_argument for a request
/// that contradicts itself (Gram pass with fewer directions than weights).
Plan make_plan(const PlanRequest& request);

}  // namespace hesper
