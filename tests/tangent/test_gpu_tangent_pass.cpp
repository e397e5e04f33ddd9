// Whole passes on a GPU in every precision against fp64 on the CPU.
#include <gtest/gtest.h>

#include "gpu.h"
#include "hessian/autograd_engine.h"
#include "tangent/gpu_shapes.h"
#include "tangent/tangent_pass.h"
#include "tangent/whole_parameters.h"

namespace hesper::test {
namespace {

struct Way {
  at::ScalarType working;
  Products products;
  // fp64: as on a CPU. fp32: roundings of 6e-8 through some twenty ops. The others: what the tier promises (bf16x3:
  // 1e-4, engine.md), and for tf32 and bf16 their 11 and 8 bits through as many ops.
  double tolerance;
};
constexpr Way ways[] = {{at::kDouble, Products::full, 1e-12},
                        {at::kFloat, Products::full, 1e-5},
                        {at::kFloat, Products::bf16x3, 1e-4},
                        {at::kFloat, Products::tf32, 5e-3},
                        {at::kFloat, Products::bf16, 5e-2}};

double error(const Tensor& a, const Tensor& b) { return ((a.cpu() - b).norm() / b.norm()).item<double>(); }

struct Results {
  Tensor product, again, gauss_newton, residual, form, form_gauss_newton;
};
Results run(const Toy& toy, const Selection& selection, const Parameters& parameters, int64_t cut_tokens) {
  const Selection mine = selection.to(parameters.device());
  const Tape tape = run_primal(*toy.program, parameters, mine, toy.tokens, at::kDouble);
  const int64_t n = mine.size();
  const TangentPass pass(*toy.program, parameters, mine, tape, cut_tokens * n);
  const Directions units = Directions::units(mine, 0, n, parameters.working());
  const TangentPass::Forms forms = pass.second_order(units, 0);
  return {pass.product(units, 0, Curvature::hessian),
          pass.product(units, 0, Curvature::hessian, true),
          pass.product(units, 0, Curvature::gauss_newton),
          pass.product(units, 0, Curvature::residual),
          forms.gauss_newton + forms.residual,
          forms.gauss_newton};
}

void expect_everything(const ToyShape& shape, int64_t each, at::ScalarType stored = at::kDouble) {
  HESPER_NEEDS_GPU();
  Toy here = make_toy(shape), there = make_toy(shape, gpu());
  for (Toy* toy : {&here, &there})
    for (Tensor& value : toy->values) value = value.to(stored);
  const Selection selection =
      each > 0 ? here.select_everywhere(each) : here.select({{"0.q.weight", {0, 1, 2, 3, 4, 5, 6, 7, 70, 71}}});
  const Results exact = run(here, selection, here.parameters(), 3);
  for (const Way& way : ways)
    for (const int64_t cut : {2, 1000}) {
      SCOPED_TRACE(fmt::format("{} {} cut {}", c10::toString(way.working), to_string(way.products), cut));
      const Results mine = run(there, selection, there.parameters(way.working, gpu(), way.products), cut);
      EXPECT_LT(error(mine.product, exact.product), way.tolerance);
      EXPECT_TRUE(at::equal(mine.again, mine.product));
      EXPECT_LT(error(mine.gauss_newton, exact.gauss_newton), way.tolerance);
      EXPECT_LT(error(mine.residual + mine.gauss_newton, exact.product), way.tolerance);
      EXPECT_LT(error(mine.form, exact.product), way.tolerance);
      EXPECT_LT(error(mine.form_gauss_newton, exact.gauss_newton), way.tolerance);
    }
}

TEST(GpuTangentPass, OptRowOfOneLayer) { expect_everything(opt, 0); }
TEST(GpuTangentPass, OptEveryParameter) { expect_everything(opt, 2); }
TEST(GpuTangentPass, LlamaRowOfOneLayer) { expect_everything(llama, 0); }
TEST(GpuTangentPass, LlamaEveryParameter) { expect_everything(llama, 2); }
// As checkpoints store them, matrices stay in 16 bits on the device.
TEST(GpuTangentPass, OptInHalf) { expect_everything(opt, 2, at::kHalf); }
TEST(GpuTangentPass, OptInBf16) { expect_everything(opt, 2, at::kBFloat16); }
TEST(GpuTangentPass, LlamaInBf16) { expect_everything(llama, 0, at::kBFloat16); }
TEST(GpuTangentPass, LlamaInBf16EveryParameter) { expect_everything(llama, 2, at::kBFloat16); }
TEST(GpuTangentPass, OddSizes) {
  expect_everything({.vocab = 31, .width = 18, .heads = 3, .kv_heads = 3, .hidden = 7, .windows = 1, .tokens = 5}, 2);
}

// Dense steps of whole parameters and what is read of them: a diagonal's probes and random adjoints.
TEST(GpuTangentPass, WholeParameters) {
  HESPER_NEEDS_GPU();
  for (const ToyShape& shape : {opt, llama}) {
    const Toy here = make_toy(shape), there = make_toy(shape, gpu());
    const Tensor v = at::randn({3, select_whole(here).size()}, at::kDouble);
    const auto results = [&](const Toy& toy, const Way& way, at::Device device) {
      return along_whole_parameters(toy, v, way.working, device, way.products, 21);  // cuts of 7 tokens
    };
    const Tensors exact = results(here, ways[0], at::kCPU);
    for (const Way& way : ways) {
      SCOPED_TRACE(fmt::format("{} {}", c10::toString(way.working), to_string(way.products)));
      const Tensors mine = results(there, way, gpu());
      for (size_t i = 0; i < exact.size(); ++i) EXPECT_LT(error(mine[i], exact[i]), way.tolerance) << i;
    }
  }
}

// A tape in the host's memory is the same tape.
TEST(GpuTangentPass, SpilledTape) {
  HESPER_NEEDS_GPU();
  const Toy toy = make_toy(llama, gpu());
  const Selection selection = toy.select_everywhere(2).to(gpu());
  const Parameters parameters = toy.parameters(at::kFloat, gpu(), Products::bf16x3);
  const auto product = [&](bool spilled) {
    const Tape tape = run_primal(*toy.program, parameters, selection, toy.tokens, at::kDouble, nullptr, spilled);
    for (const Kept& kept : tape.ops)
      for (const Tensor& t : kept)
        if (t.defined()) {
          EXPECT_EQ(t.is_cpu(), spilled);
        }
    const TangentPass pass(*toy.program, parameters, selection, tape, 6);
    const Directions units = Directions::units(selection, 0, selection.size(), at::kFloat);
    const TangentPass::Forms forms = pass.second_order(units, 0);
    return Tensors{pass.product(units, 0, Curvature::hessian), forms.residual, tape.gradient};
  };
  const Tensors kept = product(false), spilled = product(true);
  for (size_t i = 0; i < kept.size(); ++i) EXPECT_TRUE(at::equal(kept[i], spilled[i])) << i;
}

// Adjoints of random starts: the same random numbers on both sides.
TEST(GpuTangentPass, RandomStarts) {
  HESPER_NEEDS_GPU();
  const Toy here = make_toy(llama), there = make_toy(llama, gpu());
  for (const bool head : {false, true}) {  // the head's matrix has a path of its own
    const Selection selection = head ? here.select_everywhere(2) : here.select({{"0.q.weight", {0, 1, 2, 70}}});
    for (const auto kind : {AdjointStart::Kind::token_signs, AdjointStart::Kind::factor, AdjointStart::Kind::labels}) {
      const auto adjoint = [&](const Toy& toy, const Way& way, at::Device device) {
        const Parameters parameters = toy.parameters(way.working, device, way.products);
        const Selection mine = selection.to(device);
        const Tape tape = run_primal(*toy.program, parameters, mine, toy.tokens, at::kDouble);
        return TangentPass(*toy.program, parameters, mine, tape, 6).adjoint({kind, 7, 0, 0, 3}, 0);
      };
      const Tensor exact = adjoint(here, ways[0], at::kCPU);
      for (const Way& way : ways) {
        SCOPED_TRACE(fmt::format("kind {} {} {}", int(kind), c10::toString(way.working), to_string(way.products)));
        EXPECT_LT(error(adjoint(there, way, gpu()), exact), way.tolerance);
      }
    }
  }
}

// Directions that move whole parameters, and what they read: gradient, product and form are projections.
TEST(GpuTangentPass, WholeTensors) {
  HESPER_NEEDS_GPU();
  const Toy here = make_toy(opt), there = make_toy(opt, gpu());
  std::vector<Move> moves;
  Selection selection;  // the same on both sides: it holds no index
  int64_t direction = 0;
  for (const char* name : {"embed", "positions", "0.q.weight", "0.q.bias", "1.n2.weight", "1.down.weight"}) {
    const int p = here.program->parameter(name);
    moves.push_back({direction++ % 3, p, at::randn(here.values[p].sizes(), at::kDouble)});
    selection.add_moved(p);
  }
  struct Forms {
    Tensor gradient, product, form;
  };
  const auto forms = [&](const Toy& toy, const Way& way, at::Device device) {
    const Directions v = Directions::moves(moves, 3, way.working, device);
    const Parameters parameters = toy.parameters(way.working, device, way.products);
    const Tape tape = run_primal(*toy.program, parameters, selection, toy.tokens, at::kDouble, &v);
    const TangentPass pass(*toy.program, parameters, selection, tape, 6);
    const TangentPass::Forms f = pass.second_order(v, 0);
    return Forms{tape.gradient, pass.product(v, 0, Curvature::hessian), f.gauss_newton + f.residual};
  };
  const Forms exact = forms(here, ways[0], at::kCPU);
  for (const Way& way : ways) {
    SCOPED_TRACE(fmt::format("{} {}", c10::toString(way.working), to_string(way.products)));
    const Forms mine = forms(there, way, gpu());
    EXPECT_LT(error(mine.gradient, exact.gradient), way.tolerance);
    EXPECT_LT(error(mine.product, exact.product), way.tolerance);
    EXPECT_LT(error(mine.form, exact.form), way.tolerance);
  }
}

TEST(GpuTangentPass, AutogradEngine) {
  HESPER_NEEDS_GPU();
  const Toy there = make_toy(llama, gpu());
  const Selection selection = there.select_everywhere(2).to(gpu());
  const Parameters parameters = there.parameters(at::kDouble, gpu());
  const AutogradEngine engine(*there.program, parameters, selection, there.tokens, at::kDouble);
  const Tape tape = run_primal(*there.program, parameters, selection, there.tokens, at::kDouble);
  const TangentPass pass(*there.program, parameters, selection, tape);
  const Directions units = Directions::units(selection, 0, selection.size(), at::kDouble);
  EXPECT_LT(error(pass.product(units, 0, Curvature::hessian), engine.columns(0, selection.size()).cpu()), 1e-12);
}

}  // namespace
}  // namespace hesper::test
