#pragma once
// The forecast of a run from shapes alone, before anything is allocated: which pass, how many directions at once, and
// what each part will hold.
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
  int64_t windows = 1;         // b
  int64_t batch = 1;           // B: windows of one primal pass
  int64_t tokens = 2048;       // T
  at::ScalarType precision = at::kFloat;  // tangents
  std::optional<at::ScalarType> primal;   // unset: fp64 where its forecast is under a quarter of the tangents' time
  std::optional<Pass> pass;               // unset: the planner chooses
  int64_t directions = 0;                 // K; 0: the planner chooses
  int64_t memory_limit = 0;               // bytes; 0: what is free
  bool exact = true;                      // an n x n result; false: one vector
  bool full_errors = false;               // n x n standard errors beside it
  int curvatures = 1;                     // matrices kept: 1, or 3 for --curvature all
};

/// Bytes by part.
struct Memory {
  int64_t weights = 0;    // copies in working precision (mapped weights do not count)
  int64_t tape = 0;       // values and adjoints, at the primal pass's peak
  int64_t tangents = 0;   // residual stream and attention inputs of K directions; two-pass: what goes back reads
  int64_t head = 0;       // logits tiles
  int64_t attention = 0;  // score tiles
  int64_t result = 0;     // accumulators
  int64_t total() const { return weights + tape + tangents + head + attention + result; }
};

struct Plan {
  Pass pass = Pass::gram;
  int64_t directions = 1;  // K: all n for the Gram pass
  int64_t batch = 1;
  at::ScalarType precision = at::kFloat, primal = at::kDouble;
  Memory memory;
  int64_t limit = 0;       // bytes allowed
  int64_t units = 0;       // (batch of windows, chunk of directions)
  double primal_flops = 0, tangent_flops = 0;  // of the whole run
};

/// Throws std::runtime_error with both numbers when the smallest plan does not fit, std::invalid_argument for a request
/// that contradicts itself (Gram pass with fewer directions than weights).
Plan make_plan(const PlanRequest& request);

}  // namespace hesper
