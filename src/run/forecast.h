#pragma once
// What a run will hold, from shapes alone: every tensor of the primal pass and of the tangent passes is followed from
// the op that makes it to the one that reads it last, nothing is allocated.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "model/program.h"
#include "ops/selection.h"
#include "ops/tier_products.h"

namespace hesper {

enum class Pass {
  gram,
  two_pass,
  adjoint,  // adjoints of random starts alone: squared gradients
  primal,   // the primal pass and nothing else
};

/// The shapes of a run.
struct RunShapes {
  const Program* program = nullptr;
  const Selection* selection = nullptr;
  std::vector<std::vector<int64_t>> parameter_shapes;  // in parameter order
  std::vector<at::ScalarType> stored;                  // dtypes of the checkpoint
  int64_t loaded = 0;                                  // bytes of weights that are not mapped: dequantised, strided
  int64_t tokens = 2048;                               // T
  int64_t windows = 1;                                 // b
  int matrices = 1;                                    // n x n sums kept: one a curvature, twice that with full errors
  int64_t carried = 0;                                 // n where it is not that of the selection (probes of one layer)
  int64_t beside = 0;                                  // bytes that the caller keeps (on a GPU: there)
  at::Device device = at::kCPU;
  bool kernels = false;  // the kernels of fused.h and attention_fused.h run there
};

/// How it is to be run.
struct RunForm {
  Pass pass = Pass::gram;
  int64_t directions = 1;  // K
  bool recompute = false;  // two-pass: a block's tangents are made again on the way back
  int64_t batch = 1;       // windows of the primal pass
  at::ScalarType precision = at::kFloat, primal = at::kDouble;
  Products products = Products::full;
  bool streamed = false;  // weights stay as stored and are converted, on a GPU sent, at every use
  bool spilled = false;   // the tape lies on the host, and visits the GPU an op at a time
};

/// Bytes by part: anonymous memory of the process, or what is taken from a GPU.
struct Memory {
  int64_t library = 0;   // the process, LibTorch and MKL themselves; GPU: cuBLAS's workspace, what allocations round up
  int64_t weights = 0;   // not mapped, and copies in working precision; GPU: all of them, one factor
  int64_t result = 0;    // n x n sums (GPU: they stay on the CPU), rows of a chunk, factors of the selected entries
  int64_t primal = 0;    // the primal pass at its peak: tape, adjoints, temporaries, weights raised to its precision
  int64_t tape = 0;      // what the primal pass leaves
  int64_t tangents = 0;  // of K directions between the segments; two-pass: what goes back reads
  int64_t cuts = 0;      // temporaries of the cuts of token-local ops and of the head's logits, the largest weight in
                         // working precision where it is converted at every use, all threads
  int64_t attention = 0;  // score tiles of attention, all threads
  int64_t total() const {
    return library + weights + result + std::max(primal, tape + tangents + std::max(cuts, attention));
  }
};

/// Floating-point operations for one token; `head` for one token that carries loss.
struct RunFlops {
  double primal = 0, head = 0;                      // head: one product with the words
  double tangent = 0, adjoint_tangent = 0;          // a direction
  double adjoint = 0;                               // a random start
  double again = 0;                                 // a direction: what recomputation runs twice
  double form = 0, form_pairs = 0, head_pairs = 0;  // Gram: a direction; a pair of directions
};

/// Of each device of the program, in order; and of the fullest.
std::vector<Memory> forecast_devices(const RunShapes& shapes, const RunForm& form);
Memory forecast_memory(const RunShapes& shapes, const RunForm& form);
RunFlops count_flops(const RunShapes& shapes);

}  // namespace hesper
