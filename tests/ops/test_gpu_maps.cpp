// The fused tangent maps on a GPU against their composed twins in fp64 on the CPU, from the same tape.
//
// Tolerances, relative Frobenius: fp32 results are sums of at most some thousand terms that round at 2^-24 each and
// add up like random numbers, 2^-24 sqrt(8192) = 5e-6 at most; a left factor in bf16x3 keeps 16 bits (2^-17), in
// bf16 8.
#include <gtest/gtest.h>

#include <cmath>

#include "gpu.h"
#include "ops/activation.h"
#include "ops/attention.h"
#include "ops/attention_fused.h"
#include "ops/cross_entropy.h"
#include "ops/directions.h"
#include "ops/fused.h"
#include "ops/norm.h"
#include "ops/parameters.h"
#include "ops/readout.h"
#include "ops/second_order.h"
#include "ops/wiring.h"
#include "primal/primal.h"

namespace hesper::test {
namespace {

constexpr double kFp32 = 5e-6;
constexpr int64_t kDirections = 3;

double error(const Tensor& a, const Tensor& b) {
  return ((a.cpu().to(at::kDouble) - b).norm() / b.norm().clamp_min(1e-300)).item<double>();
}
Tensor random(at::IntArrayRef shape) { return at::randn(shape, at::kDouble); }

/// [hi | lo | hi] or hi -> what it stands for, fp32.
Tensor value_of(const Tensor& factor, int64_t width) {
  if (factor.scalar_type() != at::kBFloat16) return factor;
  const Tensor hi = factor.narrow(-1, 0, width).to(at::kFloat);
  return factor.size(-1) == width ? hi : hi + factor.narrow(-1, width, width).to(at::kFloat);
}

/// Results of the three tangent maps.
struct Maps {
  Tensor y_dot;
  Tensors x_bar_dot, plain;  // plain: of an adjoint_tangent without tangents (Gauss-Newton)
  Tensor form;               // (K, K)
};

class World {
 public:
  World(const Op& op, Tensors inputs, Tensors parameters)
      : op_(op), inputs_(std::move(inputs)), parameters_(std::move(parameters)) {
    const int64_t length = inputs_[0].size(0);
    tokens_ = make_tokens(at::randint(5, {1, length}, at::kLong), at::zeros({1, length}, at::kLong), at::kCPU);
    const Parameters wide(parameters_, at::kDouble, at::kCPU);
    const Primal p{tokens_, wide, none_, at::kDouble};
    const Tensor y = op.forward(p, inputs_, tape_);
    Readout gradient(none_, 1, at::kCPU);
    op.adjoint(p, random(y.sizes()), ~0u, tape_, gradient);
    for (const Tensor& x : inputs_) x_dot_.push_back(random({kDirections, x.size(0), x.size(1)}));
    y_bar_dot_ = random({kDirections, y.size(0), y.size(1)});
  }

  Maps run(at::ScalarType dtype, at::Device device, Products products, bool factor) const {
    const auto there = [&](const Tensor& x) { return x.defined() ? x.to(device, dtype) : x; };
    const Parameters parameters(parameters_, dtype, device, products);
    const Tokens tokens{
        1, tokens_.length, 0, tokens_.ids.to(device), tokens_.targets.to(device), there(tokens_.weights)};
    const Directions directions = Directions::dense(none_, at::zeros({kDirections, 0}, at::kDouble).to(device), dtype);
    Kept tape, kept;
    for (const Tensor& t : tape_) tape.push_back(there(t));
    Tensors x_dot;
    for (const Tensor& x : x_dot_) x_dot.push_back(there(x));
    Tangent t{tokens, parameters, directions, tape, kDirections};
    t.factor = factor;
    t.factors = factor ? ~0u : 0u;
    if (op_.inputs.size() < 32 && factor) t.factors = (1u << op_.inputs.size()) - 1;
    Maps out;
    out.y_dot = op_.forward_tangent(t, x_dot, kept);
    Readout nothing(none_, kDirections, device);
    out.x_bar_dot = op_.adjoint_tangent(t, there(y_bar_dot_), kept, nothing);
    out.plain = op_.adjoint_tangent(t, there(y_bar_dot_), {}, nothing);
    // The Gram pass, in which forward_tangent may add the form itself.
    SecondOrder form(none_, directions, dtype, device, products);
    Kept kept_for_form;
    t.form = &form;
    op_.forward_tangent(t, x_dot, kept_for_form);
    op_.second_order(t, kept_for_form, form);
    out.form = form.residual();
    return out;
  }

  /// condition: by how much cancellation in the op enlarges the roundings of its factors.
  void expect_equal(double condition = 1) const {
    const Maps exact = run(at::kDouble, at::kCPU, Products::full, false);
    for (const auto& [products, factor, rounding] :
         {std::tuple{Products::full, false, kFp32}, {Products::bf16x3, true, 2e-5}, {Products::bf16, true, 5e-3}}) {
      SCOPED_TRACE(op_.name() + " " + to_string(products));
      const double tolerance = condition * rounding;
      const Maps mine = run(at::kFloat, gpu(), products, factor);
      EXPECT_LT(error(value_of(mine.y_dot, exact.y_dot.size(2)), exact.y_dot), tolerance);
      for (size_t i = 0; i < exact.x_bar_dot.size(); ++i) {
        const int64_t width = exact.x_bar_dot[i].size(2);
        EXPECT_LT(error(value_of(mine.x_bar_dot[i], width), exact.x_bar_dot[i]), tolerance) << i;
        EXPECT_LT(error(value_of(mine.plain[i], width), exact.plain[i]), tolerance) << i;
      }
      if (exact.form.norm().item<double>() > 0) {
        EXPECT_LT(error(mine.form, exact.form), 2 * tolerance);
      }
    }
  }

 private:
  const Op& op_;
  Tensors inputs_, parameters_, x_dot_;
  Tensor y_bar_dot_;
  Tokens tokens_;
  Kept tape_;
  const Selection none_;
};

class GpuMaps : public testing::Test {
 protected:
  void SetUp() override {
    HESPER_NEEDS_GPU();
    at::manual_seed(23);
  }
};

TEST_F(GpuMaps, Norms) {
  for (const auto kind : {Norm::Kind::layer, Norm::Kind::rms})
    for (const bool gain : {true, false})
      for (const int64_t width : {4, 64, 260, 768, 2048, 4100, 8192, 7}) {
        SCOPED_TRACE(width);
        const Norm op(kind, 0, gain ? 0 : -1, -1, 1e-5);
        World(op, {random({5, width}) + 0.3}, {random({width}) * 0.3 + 1}).expect_equal();
      }
}
TEST_F(GpuMaps, NormAdjointAddsToTheResidual) {
  const Selection none;
  const int64_t k = 2, rows = 3, width = 12;
  const auto make = [&](at::IntArrayRef shape) {
    return at::randn(shape, at::TensorOptions(at::kFloat).device(gpu()));
  };
  const fused::NormTape tape{
      make({rows, width}), make({rows, 1}).abs(), make({rows, width}), make({rows, 1}), {}, true};
  const Tensor y = make({k, rows, width}), sum = make({k, rows, width}), before = sum.clone();
  const Tensor alone = fused::norm_adjoint(tape, y, {}, {}, {}), both = fused::norm_adjoint(tape, y, {}, {}, sum);
  EXPECT_LT(error(both, (alone + before).cpu().to(at::kDouble)), 1e-6);
}
TEST_F(GpuMaps, Activations) {
  for (const Phi phi : {Phi::relu, Phi::gelu, Phi::gelu_tanh, Phi::silu})
    for (const int64_t width : {4, 96, 3072, 5}) {
      const Activation one(0, phi);
      World(one, {random({7, width})}, {}).expect_equal();
      const GatedActivation gated(0, 1, phi);
      World(gated, {random({7, width}), random({7, width})}, {}).expect_equal();
    }
}
TEST_F(GpuMaps, RotaryEmbedding) {
  for (const auto& [heads, width] : {std::pair{3, 64}, {1, 8}, {2, 80}, {2, 6}}) {
    std::vector<double> frequencies;
    for (int i = 0; i < width / 2; ++i) frequencies.push_back(std::pow(100.0, -2.0 * i / width));
    const Tensor x = random({9, heads * width});
    // One program on each device: the tables lie where the passes run.
    const Rotary here(0, frequencies, 9);
    Rotary there(0, frequencies, 9);
    there.place(gpu());
    const Tokens tokens = make_tokens(at::zeros({1, 9}, at::kLong), at::zeros({1, 9}, at::kLong), at::kCPU);
    const Parameters none({}, at::kFloat, gpu(), Products::bf16x3), none_wide({}, at::kDouble, at::kCPU);
    const Directions nowhere;
    const Kept nothing;
    const Tensor x_dot = random({2, 9, heads * width});
    Kept kept;
    Selection empty;
    Readout out(empty, 2, gpu());
    Tangent near{tokens, none_wide, nowhere, nothing, 2}, far{tokens, none, nowhere, nothing, 2};
    far.factors = 1;
    const Tensor on_gpu = x_dot.to(gpu(), at::kFloat);
    EXPECT_LT(error(there.forward_tangent(far, {on_gpu}, kept), here.forward_tangent(near, {x_dot}, kept)), kFp32);
    EXPECT_LT(error(value_of(there.adjoint_tangent(far, on_gpu, {}, out)[0], heads * width),
                    here.adjoint_tangent(near, x_dot, {}, out)[0]),
              2e-5);
  }
}

// Scores large and small (P nearly uniform), grouped heads, one and several rows of tiles. Of two tokens one has a
// choice, and dP_0 - Dl = P_1 (dP_0 - dP_1) with P_1 about 0.1: ten times the rounding of dP.
TEST_F(GpuMaps, AttentionMaps) {
  for (const auto& [length, heads, kv_heads, width, size, condition] : {std::tuple{300, 4, 4, 64, 1.0, 1.0},
                                                                        {300, 4, 2, 64, 0.1, 1.0},
                                                                        {130, 2, 1, 80, 1.0, 1.0},
                                                                        {65, 2, 2, 16, 1.0, 1.0},
                                                                        {2, 1, 1, 64, 1.0, 10.0},
                                                                        {700, 8, 2, 64, 0.05, 1.0}}) {
    SCOPED_TRACE(fmt::format("T {} H {} G {} D {} size {}", length, heads, kv_heads, width, size));
    const AttentionShape shape{heads, kv_heads, width, 1 / std::sqrt(double(width))};
    const Tensor there = at::zeros({1}, at::TensorOptions(at::kFloat).device(gpu()));
    for (const Products products : {Products::bf16x3, Products::tf32, Products::bf16})  // what decides who runs
      EXPECT_TRUE(attention_fused::serves(shape, there, products));
    EXPECT_FALSE(attention_fused::serves(shape, there, Products::full));
    const Attention op(0, 1, 2, shape);
    World(op,
          {random({length, heads * width}) * size, random({length, kv_heads * width}) * size,
           random({length, kv_heads * width})},
          {})
        .expect_equal(condition);
  }
}

// The head: tiles of words, whole and ragged, and tokens that do not count.
TEST_F(GpuMaps, Head) {
  for (const auto& [vocab, width, length, stored] : {std::tuple{52, 16, 6, at::kDouble},
                                                     {1000, 64, 33, at::kDouble},
                                                     {31, 8, 5, at::kDouble},
                                                     {50272, 64, 40, at::kDouble},
                                                     {1000, 64, 33, at::kBFloat16},
                                                     {50272, 64, 40, at::kBFloat16},
                                                     {1000, 64, 33, at::kHalf}}) {
    SCOPED_TRACE(fmt::format("{} words in {}", vocab, c10::toString(stored)));
    const CrossEntropyHead head(0, 0);
    const Tensor x = random({length, width}), table = (random({vocab, width}) / std::sqrt(double(width))).to(stored);
    Tensor labels = at::randint(vocab, {1, length}, at::kLong);
    labels[0][2] = -100;
    const Tokens tokens = make_tokens(labels.clamp_min(0), labels, at::kCPU);
    const Selection none;
    const Parameters wide({table}, at::kDouble, at::kCPU);
    Kept tape;
    Readout gradient(none, 1, at::kCPU);
    head.forward_adjoint({tokens, wide, none, at::kDouble}, x, tape, gradient);
    const Directions nowhere;
    const Tensor x_dot = random({kDirections, length, width});
    Readout out(none, kDirections, at::kCPU);
    const Tensor exact =
        head.adjoint_tangent({tokens, wide, nowhere, tape, kDirections}, x_dot, Curvature::hessian, out);
    SecondOrder exact_form(none, nowhere, at::kDouble, at::kCPU);
    const Directions three = Directions::dense(none, at::zeros({kDirections, 0}, at::kDouble), at::kDouble);
    SecondOrder form(none, three, at::kDouble, at::kCPU);
    head.second_order({tokens, wide, nowhere, tape, kDirections}, x_dot, form);
    for (const auto& [products, tolerance] :
         {std::pair{Products::full, kFp32}, {Products::bf16x3, 5e-5}, {Products::tf32, 2e-3}, {Products::bf16, 1e-2}}) {
      SCOPED_TRACE(to_string(products));
      const auto there = [&](const Tensor& t) { return t.to(gpu(), at::kFloat); };
      const Tokens far{1, length, 0, tokens.ids.to(gpu()), tokens.targets.to(gpu()), tokens.weights.to(gpu())};
      const Parameters low({table}, at::kFloat, gpu(), products);
      const Kept there_tape = {there(tape[0]), there(tape[1]), there(tape[2])};
      const Tangent t{far, low, nowhere, there_tape, kDirections};
      EXPECT_LT(error(head.adjoint_tangent(t, there(x_dot), Curvature::hessian, out), exact), tolerance);
      SecondOrder mine(none, three, at::kFloat, gpu(), products);
      head.second_order(t, there(x_dot), mine);
      EXPECT_LT(error(mine.gauss_newton(), form.gauss_newton()), tolerance);
    }
  }
}

TEST_F(GpuMaps, ProductsAndSplits) {
  for (const auto& [rows, in, out, stored] : {std::tuple{7, 13, 5, at::kFloat},
                                              {64, 64, 128, at::kFloat},
                                              {33, 768, 256, at::kFloat},
                                              {1, 4, 4, at::kFloat},
                                              {7, 13, 5, at::kBFloat16},
                                              {64, 64, 128, at::kBFloat16},
                                              {33, 768, 256, at::kBFloat16},
                                              {40, 4104, 8, at::kBFloat16}}) {
    SCOPED_TRACE(fmt::format("{} x {} x {} {}", rows, in, out, c10::toString(stored)));
    const Tensor narrow = random({out, in}).to(stored), w = narrow.to(at::kDouble);
    const Tensor x = random({2, rows, in}), y = random({2, rows, out});
    const auto there = [&](const Tensor& t) { return t.to(gpu(), at::kFloat); };
    for (const auto& [products, tolerance] :
         {std::pair{Products::full, 1e-6}, {Products::bf16x3, 2e-5}, {Products::tf32, 2e-3}, {Products::bf16, 8e-3}}) {
      SCOPED_TRACE(to_string(products));
      const Tensor mine = narrow.to(gpu(), splits(products) ? narrow.scalar_type() : at::kFloat);
      EXPECT_LT(error(times(there(x), mine.t(), products), x.matmul(w.t())), tolerance);
      EXPECT_LT(error(times(there(y), mine, products), y.matmul(w)), tolerance);
      Tensor sum = at::ones({2, rows, in}, at::TensorOptions(at::kFloat).device(gpu()));
      add_times(sum, there(y), mine, products);
      EXPECT_LT(error(sum, y.matmul(w) + 1), tolerance);
      const Tensor a = random({3, 20000 + rows});
      EXPECT_LT(error(long_product(there(a), there(a), products), a.mm(a.t())), tolerance);
    }
  }
}

}  // namespace
}  // namespace hesper::test
