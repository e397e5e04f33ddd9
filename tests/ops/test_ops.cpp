// Every op through expect_second_order, at ordinary, odd and smallest sizes.
#include <gtest/gtest.h>

#include <cmath>

#include "ops/activation.h"
#include "ops/attention.h"
#include "ops/expect_second_order.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/wiring.h"
#include "primal/primal.h"

namespace hesper::test {
namespace {

Tensor random(at::IntArrayRef shape, double scale = 1) { return at::randn(shape, at::kDouble) * scale; }

class Ops : public testing::Test {
 protected:
  void SetUp() override { at::manual_seed(17); }
};

// ---- linear

struct LinearCase {
  int64_t windows, length, in, out, selected;
  bool bias;
};
class LinearOp : public testing::TestWithParam<LinearCase> {};
TEST_P(LinearOp, SecondOrder) {
  at::manual_seed(17);
  const LinearCase c = GetParam();
  OpWorld world(c.windows, c.length);
  world.inputs = {random({c.windows * c.length, c.in})};
  world.parameters = {random({c.out, c.in}, 1 / std::sqrt(double(c.in)))};
  if (c.bias) world.parameters.push_back(random({c.out}));
  c.selected > 0 ? world.select(c.selected) : world.select_all();
  expect_second_order(Linear(0, 0, c.bias ? 1 : -1), world);
}
INSTANTIATE_TEST_SUITE_P(Sizes, LinearOp,
                         testing::Values(LinearCase{2, 5, 7, 3, 4, true}, LinearCase{2, 5, 7, 3, 0, true},
                                         LinearCase{1, 6, 8, 16, 5, false}, LinearCase{1, 1, 1, 1, 0, true},
                                         LinearCase{3, 1, 1, 9, 2, true}, LinearCase{1, 33, 13, 1, 13, true}));

TEST_F(Ops, LinearThatNobodySelected) {
  OpWorld world(2, 4);
  world.inputs = {random({8, 5})};
  world.parameters = {random({3, 5}), random({3})};
  expect_second_order(Linear(0, 0, 1), world);
}
TEST_F(Ops, LinearWithItsBiasAloneSelected) {
  OpWorld world(2, 4);
  world.inputs = {random({8, 5})};
  world.parameters = {random({3, 5}), random({3})};
  world.selection.add_whole(1, world.parameters[1].sizes());
  expect_second_order(Linear(0, 0, 1), world);
}

// ---- norms

struct NormCase {
  Norm::Kind kind;
  int64_t windows, length, width;
  bool gain, bias;
  int64_t selected;  // of each; 0: all, -1: none
  double eps;
};
class NormOp : public testing::TestWithParam<NormCase> {};
TEST_P(NormOp, SecondOrder) {
  at::manual_seed(17);
  const NormCase c = GetParam();
  OpWorld world(c.windows, c.length);
  world.inputs = {random({c.windows * c.length, c.width}) + 0.3};
  int gain = -1, bias = -1;
  if (c.gain) gain = int(world.parameters.size()), world.parameters.push_back(random({c.width}, 0.3) + 1);
  if (c.bias) bias = int(world.parameters.size()), world.parameters.push_back(random({c.width}));
  if (c.selected > 0) world.select(c.selected);
  if (c.selected == 0) world.select_all();
  expect_second_order(Norm(c.kind, 0, gain, bias, c.eps), world);
}
constexpr auto kLayer = Norm::Kind::layer, kRms = Norm::Kind::rms;
INSTANTIATE_TEST_SUITE_P(
    Sizes, NormOp,
    testing::Values(NormCase{kLayer, 2, 5, 9, true, true, 4, 1e-5}, NormCase{kLayer, 2, 5, 9, true, true, 0, 1e-5},
                    NormCase{kLayer, 1, 4, 7, false, false, -1, 1e-5}, NormCase{kLayer, 1, 3, 8, true, false, 3, 0.1},
                    NormCase{kLayer, 1, 3, 8, true, true, -1, 1e-5},
                    // one channel, and one token: x - mean(x) is zero, y is the bias
                    NormCase{kLayer, 1, 1, 1, true, true, 0, 0.5}, NormCase{kLayer, 3, 1, 2, true, true, 0, 0.5},
                    NormCase{kRms, 2, 5, 9, true, false, 4, 1e-6}, NormCase{kRms, 2, 5, 9, true, false, 0, 0.5},
                    NormCase{kRms, 1, 4, 7, false, false, -1, 1e-5}, NormCase{kRms, 1, 3, 8, true, false, -1, 1e-5},
                    NormCase{kRms, 1, 1, 1, true, false, 0, 0.5}, NormCase{kRms, 3, 1, 2, true, false, 0, 0.5}));

// ---- activations

// Away from 0, so that no step of a difference crosses the kink of ReLU.
Tensor without_kinks(const Tensor& x) { return at::where(x.abs().lt(0.01), x + 0.05, x); }

class PhiOp : public testing::TestWithParam<std::tuple<Phi, int64_t>> {};
TEST_P(PhiOp, Activation) {
  at::manual_seed(17);
  const auto [phi, width] = GetParam();
  OpWorld world(2, 5);
  world.inputs = {without_kinks(random({10, width}, 2))};
  expect_second_order(Activation(0, phi), world);
}
TEST_P(PhiOp, Gated) {
  at::manual_seed(17);
  const auto [phi, width] = GetParam();
  OpWorld world(2, 5);
  world.inputs = {without_kinks(random({10, width}, 2)), random({10, width})};
  expect_second_order(GatedActivation(0, 1, phi), world);
}
INSTANTIATE_TEST_SUITE_P(Phis, PhiOp,
                         testing::Combine(testing::Values(Phi::relu, Phi::gelu, Phi::gelu_tanh, Phi::silu),
                                          testing::Values<int64_t>(1, 6, 13)));
TEST_F(Ops, ActivationsFarOut) {
  // phi' and phi'' must neither overflow nor become NaN where exp does.
  const Tensor x = at::tensor({-800.0, -40.0, -5.0, 5.0, 40.0, 800.0}, at::kDouble);
  for (const Phi phi : {Phi::relu, Phi::gelu, Phi::gelu_tanh, Phi::silu}) {
    const Tensor value = phi_value(phi, x);
    const auto [first, second] = phi_slopes(phi, x);
    for (const Tensor& t : {value, first, second})
      EXPECT_TRUE(!t.defined() || t.isfinite().all().item<bool>()) << int(phi) << t;
    EXPECT_EQ(value[5].item<double>(), 800);
    EXPECT_EQ(first[5].item<double>(), 1);
    EXPECT_NEAR(value[0].item<double>(), 0, 1e-300);
  }
}

// ---- linear in the input

TEST_F(Ops, Add) {
  for (const int64_t width : {1, 7}) {
    OpWorld world(2, 3);
    world.inputs = {random({6, width}), random({6, width})};
    expect_second_order(hesper::Add(0, 1), world);
  }
}
TEST_F(Ops, Rotary) {
  for (const auto& [heads, width, length] : {std::tuple{3, 6, 5}, {1, 2, 1}, {4, 10, 9}}) {
    OpWorld world(2, length);
    world.inputs = {random({2 * length, heads * width})};
    std::vector<double> frequencies;
    for (int i = 0; i < width / 2; ++i) frequencies.push_back(std::pow(100.0, -2.0 * i / width));
    expect_second_order(hesper::Rotary(0, frequencies, length + 3), world);
  }
}
TEST_F(Ops, EmbeddingByToken) {
  for (const int64_t selected : {4, 0}) {
    OpWorld world(2, 9, 5);
    world.parameters = {random({5, 3})};
    selected > 0 ? world.select(selected) : world.select_all();
    expect_second_order(Embedding(Embedding::By::token, 0, 0), world);
  }
}
TEST_F(Ops, EmbeddingByPosition) {
  OpWorld world(2, 5);
  world.parameters = {random({9, 3})};
  world.select(11);
  expect_second_order(Embedding(Embedding::By::position, 0, 2), world);
}
TEST_F(Ops, EmbeddingOfOneWord) {
  OpWorld world(1, 1, 1);
  world.parameters = {random({1, 1})};
  world.select_all();
  expect_second_order(Embedding(Embedding::By::token, 0, 0), world);
}

// ---- attention

struct AttentionCase {
  int64_t windows, length, heads, kv_heads, width;
};
class AttentionOp : public testing::TestWithParam<AttentionCase> {};
TEST_P(AttentionOp, SecondOrder) {
  at::manual_seed(17);
  const AttentionCase c = GetParam();
  OpWorld world(c.windows, c.length);
  const int64_t rows = c.windows * c.length;
  world.inputs = {random({rows, c.heads * c.width}, 1.5), random({rows, c.kv_heads * c.width}, 1.5),
                  random({rows, c.kv_heads * c.width})};
  const double scale = 1 / std::sqrt(double(c.width));
  expect_second_order(Attention(0, 1, 2, {c.heads, c.kv_heads, c.width, scale}), world, c.length > 100 ? 2 : 3);
}
INSTANTIATE_TEST_SUITE_P(Sizes, AttentionOp,
                         testing::Values(AttentionCase{2, 7, 4, 4, 3},      // every head its own keys
                                         AttentionCase{2, 7, 6, 2, 5},      // grouped
                                         AttentionCase{2, 6, 3, 1, 4},      // one key/value head
                                         AttentionCase{2, 1, 2, 1, 3},      // one token: P = 1
                                         AttentionCase{1, 1, 1, 1, 1},      //
                                         AttentionCase{1, 2, 1, 1, 1},      //
                                         AttentionCase{1, 256, 2, 1, 3},    // exactly one block of rows
                                         AttentionCase{1, 257, 1, 1, 2},    // a second block of one row
                                         AttentionCase{1, 531, 2, 1, 2}));  // three blocks, the last ragged

// ---- head

struct HeadCase {
  int64_t windows, length, vocab, width, selected;  // selected: 0 all, -1 none
};
class Head : public testing::TestWithParam<HeadCase> {};
TEST_P(Head, SecondOrder) {
  at::manual_seed(17);
  const HeadCase c = GetParam();
  OpWorld world(c.windows, c.length, c.vocab);
  world.inputs = {random({c.windows * c.length, c.width})};
  world.parameters = {random({c.vocab, c.width})};
  if (c.selected > 0) world.select(c.selected);
  if (c.selected == 0) world.select_all();
  expect_second_order(CrossEntropyHead(0, 0), world);
}
INSTANTIATE_TEST_SUITE_P(Sizes, Head,
                         testing::Values(HeadCase{2, 6, 11, 5, 7}, HeadCase{2, 6, 11, 5, 0}, HeadCase{2, 6, 11, 5, -1},
                                         HeadCase{1, 2, 1, 1, 0}, HeadCase{1, 2, 2, 1, 0}, HeadCase{3, 2, 3, 7, 5},
                                         // more words than one tile of logits tangents holds: 2^19 / (3 * 171) = 1022
                                         HeadCase{1, 171, 2500, 2, -1}));
TEST_F(Ops, HeadWithTokensThatDoNotCount) {
  OpWorld world(2, 6, 9);
  const Tensor ids = world.tokens.ids.view({2, 6});
  Tensor labels = ids.clone();
  labels[0].narrow(0, 0, 4).fill_(-100);
  labels[1][3] = -100;
  world.tokens = make_tokens(ids, labels, at::kCPU);
  world.inputs = {random({12, 4})};
  world.parameters = {random({9, 4})};
  world.select(10);
  expect_second_order(CrossEntropyHead(0, 0), world);
}

}  // namespace
}  // namespace hesper::test
