// A model's blocks dealt to two GPUs: the same bits as on one.
#include <gtest/gtest.h>

#include "gpu.h"
#include "tangent/gpu_shapes.h"
#include "tangent/tangent_pass.h"

namespace hesper::test {
namespace {

/// Blocks enough for two devices, and two windows.
ToyShape larger(ToyShape shape) {
  shape.blocks = 4, shape.windows = 2;
  return shape;
}

struct Named {
  const char* name;
  Tensor value;
};
std::vector<Named> run(const Toy& toy, const Selection& selection, at::ScalarType working, Products products) {
  const std::vector<at::Device> devices = toy.program->parameter_devices();
  const Parameters parameters(toy.values, working, gpu(), devices, products);
  const Selection mine = selection.to(devices);
  const Tape tape = run_primal(*toy.program, parameters, mine, toy.tokens, at::kDouble);
  const int64_t n = mine.size();
  const TangentPass pass(*toy.program, parameters, mine, tape, 6 * n);
  const Directions units = Directions::units(mine, 0, n, working);
  const Directions dense = Directions::dense(mine, at::eye(n, at::kDouble), working);
  const TangentPass::Forms forms = pass.second_order(units, 1);
  return {{"losses", tape.losses},
          {"gradient", tape.gradient},
          {"product", pass.product(units, 1, Curvature::hessian)},
          {"recomputed", pass.product(units, 1, Curvature::hessian, true)},
          {"dense", pass.product(dense, 0, Curvature::hessian)},
          {"Gauss-Newton", pass.product(units, 1, Curvature::gauss_newton)},
          {"form", forms.gauss_newton},
          {"residual form", forms.residual},
          {"dense form", pass.second_order(dense, 0).residual},
          {"adjoints", pass.adjoint({AdjointStart::Kind::factor, 7, 0, 0, 3}, 0)},
          {"forward", run_forward(*toy.program, parameters, toy.tokens, at::kDouble)}};
}

void expect_same(const ToyShape& shape, const std::vector<std::string>& names) {
  HESPER_NEEDS_GPUS(2);
  const Toy one = make_toy(larger(shape), gpu()), two = make_toy(larger(shape), {gpu(0), gpu(1)});
  EXPECT_EQ(two.program->devices().size(), 2u);
  Selection selection;
  for (const std::string& name : names) {
    const int p = one.program->parameter(name);
    ASSERT_GE(p, 0) << name;
    selection.add(p, one.values[p].sizes(), at::tensor({3, 1, 40}));
  }
  for (const auto& [working, products] :
       {std::pair{at::kDouble, Products::full}, {at::kFloat, Products::full}, {at::kFloat, Products::bf16x3}}) {
    SCOPED_TRACE(to_string(products));
    const std::vector<Named> a = run(one, selection, working, products), b = run(two, selection, working, products);
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i].value.cpu(), b[i].value.cpu())) << a[i].name;
  }
}

TEST(SeveralGpus, FirstBlock) { expect_same(llama, {"0.q.weight"}); }
TEST(SeveralGpus, LastBlock) { expect_same(opt, {"3.down.weight", "3.q.bias"}); }
TEST(SeveralGpus, LayersOfBoth) { expect_same(llama, {"embed", "0.k.weight", "1.n2.weight", "3.o.weight", "lm_head"}); }
TEST(SeveralGpus, TiedTable) { expect_same(opt, {"embed", "positions", "2.up.weight"}); }

}  // namespace
}  // namespace hesper::test
