// What single families add to the ops of test_ops.cpp, through the same call.
#include <gtest/gtest.h>

#include <cmath>

#include "ops/attention.h"
#include "ops/expect_second_order.h"
#include "ops/experts.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/wiring.h"

namespace hesper::test {
namespace {

Tensor random(at::IntArrayRef shape, double scale = 1) { return at::randn(shape, at::kDouble) * scale; }

class FamilyOps : public testing::Test {
 protected:
  void SetUp() override { at::manual_seed(23); }
};

// ---- linear layers stored turned

TEST_F(FamilyOps, LinearStoredTurned) {
  for (const int64_t selected : {7, 0, -1}) {
    OpWorld world(2, 5);
    world.inputs = {random({10, 7})};
    world.parameters = {random({7, 3}), random({3})};
    if (selected > 0) world.select(selected);
    if (selected == 0) world.select_all();
    expect_second_order(Linear(0, 0, 1, Linear::Stored::in_out), world);
  }
}

// ---- norms of heads, gains stored less one

struct HeadNormCase {
  Norm::Kind kind;
  int64_t heads, width;
  bool gain, bias;
  double offset, eps;
  int64_t selected;  // of each; 0: all, -1: none
};
class HeadNorm : public testing::TestWithParam<HeadNormCase> {};
TEST_P(HeadNorm, SecondOrder) {
  at::manual_seed(23);
  const HeadNormCase c = GetParam();
  OpWorld world(2, 5);
  world.inputs = {random({10, c.heads * c.width}) + 0.3};
  int gain = -1, bias = -1;
  if (c.gain) gain = int(world.parameters.size()), world.parameters.push_back(random({c.width}, 0.3));
  if (c.bias) bias = int(world.parameters.size()), world.parameters.push_back(random({c.width}));
  if (c.selected > 0) world.select(c.selected);
  if (c.selected == 0) world.select_all();
  expect_second_order(Norm(c.kind, 0, gain, bias, c.eps, c.heads, c.offset), world);
}
constexpr auto kLayer = Norm::Kind::layer, kRms = Norm::Kind::rms;
INSTANTIATE_TEST_SUITE_P(Sizes, HeadNorm,
                         testing::Values(HeadNormCase{kRms, 3, 4, true, false, 0, 1e-6, 0},
                                         HeadNormCase{kRms, 3, 4, true, false, 1, 0.5, 2},
                                         HeadNormCase{kRms, 1, 6, true, false, 1, 1e-5, 0},
                                         HeadNormCase{kRms, 2, 5, false, false, 0, 0.1, -1},
                                         HeadNormCase{kRms, 4, 1, true, false, 1, 0.5, -1},
                                         HeadNormCase{kLayer, 2, 5, true, true, 0, 1e-5, 0},
                                         HeadNormCase{kLayer, 3, 3, true, true, 1, 0.1, 2}));

// ---- linear in the input

TEST_F(FamilyOps, ScaleOfAllTokensAndByPosition) {
  OpWorld world(2, 4);
  world.inputs = {random({8, 5})};
  expect_second_order(Scale(0, {3.5}), world);
  expect_second_order(Scale(0, {1, -2, 3, 0.5, 9}), world);  // a table longer than the windows
}
TEST_F(FamilyOps, Channels) {
  OpWorld world(2, 4);
  world.inputs = {random({8, 12})};
  expect_second_order(hesper::Channels(0, 12, 3, 8), world);
  expect_second_order(hesper::Channels(0, 4, 0, 1), world);
  expect_second_order(hesper::Channels(0, 6, 4, 6), world);
}
TEST_F(FamilyOps, RotaryOfAPartAndOfNeighbours) {
  for (const auto pairs : {Rotary::Pairs::halves, Rotary::Pairs::neighbours})
    for (const int64_t head_dim : {4, 7}) {
      OpWorld world(2, 5);
      world.inputs = {random({10, 3 * head_dim})};
      expect_second_order(Rotary(0, {1.0, 0.1}, 6, head_dim, pairs), world);
    }
}

// ---- attention to a part of the past, capped scores

struct AttentionCase {
  int64_t windows, length;
  AttentionShape shape;
};
class LimitedAttention : public testing::TestWithParam<AttentionCase> {};
TEST_P(LimitedAttention, SecondOrder) {
  at::manual_seed(23);
  const auto& [windows, length, shape] = GetParam();
  OpWorld world(windows, length);
  const int64_t rows = windows * length, q = shape.heads * shape.width, kv = shape.kv_heads * shape.width;
  world.inputs = {random({rows, q}, 1.5), random({rows, kv}, 1.5), random({rows, kv})};
  expect_second_order(Attention(0, 1, 2, shape), world, length > 100 ? 2 : 3);
}
INSTANTIATE_TEST_SUITE_P(
    Sizes, LimitedAttention,
    testing::Values(AttentionCase{2, 7, {4, 2, 3, 0.6, 3}}, AttentionCase{2, 7, {2, 2, 3, 0.6, 1}},
                    AttentionCase{2, 7, {2, 1, 3, 0.6, 7}},  // wide enough: plain
                    AttentionCase{2, 7, {4, 2, 3, 0.6, 0, 3}}, AttentionCase{2, 8, {2, 1, 3, 0.6, 0, 4}},
                    AttentionCase{2, 6, {2, 1, 3, 0.6, 0, 0, 1.5}}, AttentionCase{2, 9, {4, 2, 3, 0.6, 4, 0, 2}},
                    AttentionCase{1, 1, {1, 1, 1, 1, 1, 1, 1}},
                    AttentionCase{1, 300, {2, 1, 2, 0.7, 20}},  // blocks of 256 rows that see a part of the keys
                    AttentionCase{1, 300, {1, 1, 2, 0.7, 0, 90, 3}}));

TEST(LimitedAttention, PlainWhereNothingIsHidden) {
  const AttentionShape window{1, 1, 2, 1, 8}, chunk{1, 1, 2, 1, 0, 8}, cap{1, 1, 2, 1, 0, 0, 50};
  EXPECT_TRUE(window.plain(8) && chunk.plain(8));
  EXPECT_FALSE(window.plain(9) || chunk.plain(9) || cap.plain(1));
}

// ---- capped logits

TEST_F(FamilyOps, HeadWithCappedLogits) {
  for (const int64_t selected : {7, 0, -1}) {
    OpWorld world(2, 6, 11);
    world.inputs = {random({12, 5})};
    world.parameters = {random({11, 5})};
    if (selected > 0) world.select(selected);
    if (selected == 0) world.select_all();
    expect_second_order(CrossEntropyHead(0, 0, 2.0), world);
  }
}
TEST_F(FamilyOps, HeadWithCappedLogitsInTilesOfWords) {
  OpWorld world(1, 171, 2500);
  world.inputs = {random({171, 2})};
  world.parameters = {random({2500, 2})};
  expect_second_order(CrossEntropyHead(0, 0, 1.5), world);
  world.inputs = {random({171, 1})};  // more directions than channels
  world.parameters = {random({2500, 1})};
  expect_second_order(CrossEntropyHead(0, 0, 1.5), world);
}

// ---- mixture of experts

TEST_F(FamilyOps, ExpertInput) {
  for (const int64_t slot : {0, 2}) {
    OpWorld world(2, 6);
    world.inputs = {random({12, 5}), random({12, 4})};
    expect_second_order(hesper::ExpertInput(0, 1, 4, slot), world);
  }
}
TEST_F(FamilyOps, ExpertLinear) {
  for (const int64_t selected : {3, 0, -1})
    for (const int64_t slot : {0, 1}) {
      OpWorld world(2, 6);
      world.inputs = {random({12, 5}), random({12, 3})};
      world.parameters = {random({4, 5}), random({4, 5}), random({4, 5})};
      if (selected > 0) world.select(selected);
      if (selected == 0) world.select_all();
      expect_second_order(hesper::ExpertLinear(0, 1, {0, 1, 2}, slot), world);
    }
}
TEST_F(FamilyOps, ExpertThatNoTokenGoesTo) {
  OpWorld world(2, 4);
  world.inputs = {random({8, 5}), random({8, 2}) + at::tensor({9.0, 0.0}, at::kDouble)};
  world.parameters = {random({3, 5}), random({3, 5})};
  world.selection.add_whole(1, world.parameters[1].sizes());  // the idle one alone
  expect_second_order(hesper::ExpertLinear(0, 1, {0, 1}, 0), world);
}

}  // namespace
}  // namespace hesper::test
