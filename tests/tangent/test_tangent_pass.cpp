// The passes against LibTorch's double backward over the same forward maps, in fp64.
#include <gtest/gtest.h>

#include "hessian/autograd_engine.h"
#include "tangent/tangent_pass.h"
#include "tangent/toy_models.h"
#include "tangent/whole_parameters.h"

namespace hesper::test {
namespace {

// Both sides round at 1e-16 per operation and a few thousand of them are summed: 1e-12 leaves two digits to spare.
constexpr double kTolerance = 1e-12;

double error(const Tensor& a, const Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }

void expect_everything(const Toy& toy, const Selection& selection) {
  const Parameters parameters = toy.parameters();
  const Tape tape = run_primal(*toy.program, parameters, selection, toy.tokens, at::kDouble);
  const TangentPass pass(*toy.program, parameters, selection, tape, 3 * selection.size());  // cuts of 3 tokens
  const int64_t n = selection.size();
  for (int64_t s = 0; s < toy.tokens.sequences; ++s) {
    const AutogradEngine engine(*toy.program, parameters, selection, toy.tokens.cut(s, 0, toy.tokens.length),
                                at::kDouble);
    EXPECT_NEAR(engine.losses()[0].item<double>(), tape.losses[s].item<double>(), 1e-12);
    EXPECT_LT(error(tape.gradient[s], engine.gradient()), kTolerance);
    const Tensor h = engine.columns(0, n);

    const Directions units = Directions::units(selection, 0, n, at::kDouble);
    const Tensor product = pass.product(units, s, Curvature::hessian);
    EXPECT_LT(error(product, h), kTolerance);
    const Tensor g = pass.product(units, s, Curvature::gauss_newton), r = pass.product(units, s, Curvature::residual);
    EXPECT_LT(error(g + r, h), kTolerance);
    // Recomputation runs the same operations again: the same bits.
    EXPECT_TRUE(at::equal(pass.product(units, s, Curvature::hessian, true), product));
    EXPECT_TRUE(at::equal(pass.product(units, s, Curvature::gauss_newton, true), g));
    EXPECT_TRUE(at::equal(pass.product(units, s, Curvature::residual, true), r));

    const TangentPass::Forms forms = pass.second_order(units, s);
    EXPECT_LT(error(forms.gauss_newton + forms.residual, h), kTolerance);
    EXPECT_LT(error(forms.gauss_newton, g), kTolerance);

    // A chunk of units and dense directions give the same columns.
    const int64_t begin = n / 3, end = n - n / 4;
    const Tensor some = pass.product(Directions::units(selection, begin, end, at::kDouble), s, Curvature::hessian);
    EXPECT_LT((some - h.slice(0, begin, end)).norm().item<double>(), kTolerance * h.norm().item<double>());
    const Tensor v = at::randn({5, n}, at::kDouble);
    const Directions dense = Directions::dense(selection, v, at::kDouble);
    EXPECT_LT(error(pass.product(dense, s, Curvature::hessian), v.mm(h)), kTolerance);
    const TangentPass::Forms dense_forms = pass.second_order(dense, s);
    EXPECT_LT(error(dense_forms.gauss_newton + dense_forms.residual, v.mm(h).mm(v.t())), kTolerance);
  }
}

// Factors in bf16 pieces, as on a GPU's tensor cores, whose arithmetic a CPU follows: dense steps of whole parameters,
// the way there and back, and what is read of them.
TEST(TangentPass, WholeParametersInPieces) {
  for (const Toy& toy : {make_toy({}), make_toy({.llama = true, .kv_heads = 2, .phi = Phi::silu, .tied = false})}) {
    const Tensor v = at::randn({3, select_whole(toy).size()}, at::kDouble);
    const auto results = [&](at::ScalarType working, Products products) {
      return along_whole_parameters(toy, v, working, at::kCPU, products, 9);  // cuts of 3 tokens
    };
    const Tensors exact = results(at::kDouble, Products::full);
    // 17 and 8 bits of a factor through some twenty ops, as in test_gpu_tangent_pass.cpp
    for (const auto& [products, tolerance] : {std::pair{Products::bf16x3, 1e-4}, {Products::bf16, 5e-2}}) {
      const Tensors mine = results(at::kFloat, products);
      for (size_t i = 0; i < exact.size(); ++i) {
        EXPECT_LT(error(mine[i], exact[i]), tolerance) << to_string(products) << " " << i;
        EXPECT_GT(error(mine[i], exact[i]), 1e-7) << "not in pieces";
      }
    }
  }
}

std::vector<int64_t> first(int64_t n) {
  std::vector<int64_t> out(n);
  for (int64_t i = 0; i < n; ++i) out[i] = i;
  return out;
}

TEST(TangentPass, OptRowOfOneLayer) {
  const Toy toy = make_toy({});
  expect_everything(toy, toy.select({{"0.q.weight", first(12)}}));
}
TEST(TangentPass, OptSecondBlockOnly) {
  const Toy toy = make_toy({});
  expect_everything(toy, toy.select({{"1.v.weight", first(12)}}));
}
TEST(TangentPass, OptSeveralLayersAndBlocks) {
  const Toy toy = make_toy({});
  expect_everything(toy, toy.select({{"0.k.weight", {3, 40, 17}},
                                     {"0.o.weight", first(4)},
                                     {"0.up.weight", {5, 100, 383}},
                                     {"1.q.weight", {0, 9}},
                                     {"1.down.weight", {7, 8, 200}}}));
}
TEST(TangentPass, OptEveryParameter) {
  const Toy toy = make_toy({});
  expect_everything(toy, toy.select_everywhere(3));
}
TEST(TangentPass, OptPostNormUntied) {
  const Toy toy = make_toy({.tied = false, .pre_norm = false});
  expect_everything(toy, toy.select_everywhere(3));
}
TEST(TangentPass, OptRelu) {
  const Toy toy = make_toy({.phi = Phi::relu});
  expect_everything(toy, toy.select_everywhere(2));
}
TEST(TangentPass, LlamaEveryParameter) {
  const Toy toy = make_toy({.llama = true, .kv_heads = 2, .phi = Phi::silu, .tied = false});
  expect_everything(toy, toy.select_everywhere(3));
}
TEST(TangentPass, LlamaSingleKvHeadTied) {
  const Toy toy = make_toy({.llama = true, .kv_heads = 1, .phi = Phi::silu});
  expect_everything(toy,
                    toy.select({{"0.q.weight", first(9)}, {"1.gate.weight", {5, 6}}, {"embed", {0, 17, 33, 100}}}));
}
TEST(TangentPass, OneTokenToPredictOneHead) {
  const Toy toy = make_toy(
      {.vocab = 3, .width = 2, .heads = 1, .kv_heads = 1, .hidden = 1, .blocks = 1, .windows = 1, .tokens = 2});
  expect_everything(toy, toy.select_everywhere(2));
}

/// Directions that move whole parameters, grouped so that a parameter is moved by none, one or several of them.
void expect_whole_tensors(const Toy& toy) {
  const Parameters parameters = toy.parameters();
  const auto count = static_cast<int>(toy.values.size());
  constexpr int64_t directions = 5;
  Selection everything, moved;
  std::vector<Move> moves;
  Tensors rows(directions);  // the same directions as dense vectors over all parameters
  for (int p = 0; p < count; ++p) {
    everything.add_whole(p, toy.values[p].sizes());
    if (p % 4 == 1) continue;
    moved.add_moved(p);
    for (int64_t d = 0; d < directions; ++d)
      if (d == p % directions || d == 4) moves.push_back({d, p, at::randn_like(toy.values[p])});
  }
  const Tensor v = at::zeros({directions, everything.size()}, at::kDouble);
  for (const Move& m : moves) {
    const SelectedPart& part = *everything.find(m.parameter);
    v[m.direction].narrow(0, part.begin, part.size).copy_(m.values.flatten());
  }
  const Directions whole = Directions::moves(moves, directions, at::kDouble, at::kCPU);
  const Tape tape = run_primal(*toy.program, parameters, moved, toy.tokens, at::kDouble, &whole);
  const TangentPass pass(*toy.program, parameters, moved, tape, 3 * directions);
  for (int64_t s = 0; s < toy.tokens.sequences; ++s) {
    const AutogradEngine engine(*toy.program, parameters, everything, toy.tokens.cut(s, 0, toy.tokens.length),
                                at::kDouble);
    EXPECT_LT(error(tape.gradient[s], v.mv(engine.gradient())), kTolerance);
    const Tape full = run_primal(*toy.program, parameters, everything, toy.tokens, at::kDouble);
    const TangentPass dense(*toy.program, parameters, everything, full);
    for (Curvature kind : {Curvature::hessian, Curvature::gauss_newton, Curvature::residual}) {
      const Tensor wanted = dense.product(Directions::dense(everything, v, at::kDouble), s, kind).mm(v.t());
      const TangentPass::Forms forms = pass.second_order(whole, s);
      const Tensor form = kind == Curvature::hessian        ? forms.gauss_newton + forms.residual
                          : kind == Curvature::gauss_newton ? forms.gauss_newton
                                                            : forms.residual;
      EXPECT_LT(error(form, wanted), kTolerance);
      EXPECT_LT(error(pass.product(whole, s, kind), wanted), kTolerance);
    }
  }
}

TEST(TangentPass, WholeTensorDirections) {
  expect_whole_tensors(make_toy({}));
  expect_whole_tensors(make_toy({.tied = false, .pre_norm = false}));
  expect_whole_tensors(make_toy({.llama = true, .kv_heads = 2, .phi = Phi::silu, .tied = false}));
  expect_whole_tensors(make_toy({.llama = true, .kv_heads = 1, .phi = Phi::silu}));
}

}  // namespace
}  // namespace hesper::test
