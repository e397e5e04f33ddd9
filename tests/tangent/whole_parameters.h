// Steps of whole parameters and what is read of them, as a diagonal's probes and random adjoints have them.
#pragma once

#include "tangent/tangent_pass.h"
#include "tangent/toy_models.h"

namespace hesper::test {

/// Two matrices of the first block, a matrix and a vector of the second.
inline Selection select_whole(const Toy& toy) {
  Selection selection;
  for (const char* name : {"0.q.weight", "0.down.weight", "1.up.weight", "1.up.bias"}) {
    const int p = toy.program->parameter(name);
    selection.add_whole(p, toy.values[p].sizes());
  }
  return selection;
}

/// The product with v (3, n) and three adjoints of random starts, of the first window; tokens of a cut: cut_rows / 3.
inline Tensors along_whole_parameters(const Toy& toy, const Tensor& v, at::ScalarType working, at::Device device,
                                      Products products, int64_t cut_rows) {
  const Selection selection = select_whole(toy).to(device);
  const Parameters parameters = toy.parameters(working, device, products);
  const Tape tape = run_primal(*toy.program, parameters, selection, toy.tokens, at::kDouble);
  const TangentPass pass(*toy.program, parameters, selection, tape, cut_rows);
  return {pass.product(Directions::dense(selection, v, working), 0, Curvature::hessian),
          pass.adjoint({AdjointStart::Kind::factor, 3, 0, 0, 3}, 0)};
}

}  // namespace hesper::test
