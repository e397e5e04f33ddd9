#pragma once
// The same quantities by LibTorch's double backward over the differentiable forward maps: one direction a pass, graph
// kept. It is the rival in benchmarks and the oracle in tests and `hesper check`.
#include "primal/primal.h"

namespace hesper {

class AutogradEngine {
 public:
  /// Builds the gradient's graph for all windows of `tokens` at once; everything in `precision`.
  AutogradEngine(const Program& program, const Parameters& parameters, const Selection& selection, const Tokens& tokens,
                 at::ScalarType precision);

  const Tensor& losses() const { return losses_; }  // (B)
  Tensor gradient() const;                          // (n) of the sum of the windows' losses
  /// H v for v (n): gradient of g.v.
  Tensor product(const Tensor& v) const;
  /// Columns [begin, end) of H: (end - begin, n).
  Tensor columns(int64_t begin, int64_t end) const;

 private:
  Tensor second(const Tensor& scalar) const;
  Tensor theta_;  // (n) leaf
  Tensor losses_;
  Tensor gradient_;  // (n) with graph
};

}  // namespace hesper
