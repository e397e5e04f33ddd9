// The ways of products against fp64, in their composed form (a GPU's tensor cores: test_gpu_maps.cpp).
#include <gtest/gtest.h>

#include <cmath>

#include "ops/tier_products.h"

namespace hesper::test {
namespace {

double error(const Tensor& a, const Tensor& b) { return ((a.to(at::kDouble) - b).norm() / b.norm()).item<double>(); }

// Relative rounding of one factor; products of independent roundings add up like their squares.
constexpr double kBf16 = 1.0 / (1 << 8), kBf16x3 = 1.0 / (1 << 16), kFp32 = 1.0 / (1 << 20);
double bound(Products p) { return p == Products::full ? kFp32 : p == Products::bf16x3 ? kBf16x3 : kBf16; }

class Ways : public testing::TestWithParam<Products> {
 protected:
  void SetUp() override { at::manual_seed(3); }
};

TEST_P(Ways, TimesAStoredWeightAndItsTranspose) {
  const Products p = GetParam();
  for (const auto& [rows, in, out] : {std::tuple{7, 13, 5}, {1, 1, 1}, {33, 64, 128}, {5, 1, 9}, {5, 9, 1}}) {
    const Tensor x = at::randn({2, rows, in}, at::kFloat), w = at::randn({out, in}, at::kFloat);
    const Tensor y = at::randn({2, rows, out}, at::kFloat);
    const Tensor forward = x.to(at::kDouble).matmul(w.to(at::kDouble).t()),
                 back = y.to(at::kDouble).matmul(w.to(at::kDouble));
    EXPECT_LT(error(times(x, w.t(), p), forward), bound(p));
    EXPECT_LT(error(times(y, w, p), back), bound(p));
    EXPECT_TRUE(at::equal(times(left_factor(x, p), w.t(), p), times(x, w.t(), p)));
    Tensor sum = at::ones({2, rows, in}, at::kFloat);
    add_times(sum, y, w, p);
    EXPECT_LT(error(sum, back + 1), bound(p));
  }
}

TEST_P(Ways, LongProducts) {
  const Products p = GetParam();
  for (const int64_t m : {1, 8191, 8192, 20000}) {
    const Tensor a = at::randn({3, m}, at::kFloat), b = at::randn({3, m}, at::kFloat);
    const Tensor ab = a.to(at::kDouble).mm(b.to(at::kDouble).t()), aa = a.to(at::kDouble).mm(a.to(at::kDouble).t());
    EXPECT_LT((long_product(a, b, p) - ab).norm().item<double>(),
              bound(p) * a.norm().item<double>() * b.norm().item<double>());
    EXPECT_LT(error(long_product(a, a, p), aa), bound(p));
  }
}

TEST_P(Ways, SumsOverTokens) {
  const Products p = GetParam();
  for (const auto& [tokens, m, n] : {std::tuple{1, 3, 5}, {7, 4, 9}, {4100, 3, 2}}) {
    const Tensor a = at::randn({3, tokens, m}, at::kFloat), b = at::randn({tokens, n}, at::kFloat);
    const auto exact = [&](const Tensor& x, const Tensor& y) {
      return x.to(at::kDouble).transpose(-1, -2).matmul(y.to(at::kDouble));
    };
    // Beside the factors' rounding that of the sum in fp32, which is as long as there are tokens.
    const double tolerance = bound(p) + 6e-8 * std::sqrt(static_cast<double>(tokens));
    EXPECT_LT(error(token_product(a, b, p), exact(a, b)), tolerance);
    EXPECT_LT(error(token_product(b, a, p), exact(b, a)), tolerance);
    const Tensor strided = a.transpose(1, 2).contiguous().transpose(1, 2);
    EXPECT_LT(error(token_product(strided, a, p), exact(a, a)), tolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Ways, testing::Values(Products::full, Products::bf16x3, Products::bf16),
                         [](const auto& info) { return to_string(info.param); });

TEST(LeftFactor, TwoPlanesServeAsThree) {
  const Tensor x = at::randn({6, 8}, at::kFloat), w = at::randn({8, 3}, at::kFloat);
  Tensor three = at::zeros({6, 3}, at::kFloat), two = at::zeros({6, 3}, at::kFloat);
  const Tensor factor = left_factor(x, Products::bf16x3);
  add_times(three, factor, w, Products::bf16x3);
  add_times(two, factor.narrow(1, 0, 16).contiguous(), w, Products::bf16x3);
  EXPECT_LT((three - two).abs().max().item<double>(), 1e-6 * three.abs().max().item<double>());
}

// A weight in bf16 has no low part: its products are those of its fp32 copy, and err by the left factor alone.
TEST(RightFactor, OfAWeightInBf16) {
  at::manual_seed(4);
  constexpr double tolerance = 1.0 / (1 << 17);  // of x = hi + lo, whose lo keeps 8 bits: half a unit of 2^-16
  for (const auto& [rows, in, out] : {std::tuple{7, 13, 5}, {1, 1, 1}, {33, 64, 128}, {3, 4100, 6}, {5, 6, 4100}}) {
    SCOPED_TRACE(std::to_string(in));
    const Tensor x = at::randn({2, rows, in}, at::kFloat), y = at::randn({2, rows, out}, at::kFloat);
    const Tensor w = at::randn({out, in}, at::kFloat).to(at::kBFloat16), wide = w.to(at::kDouble);
    const Tensor forward = x.to(at::kDouble).matmul(wide.t()), back = y.to(at::kDouble).matmul(wide);
    EXPECT_EQ(right_factor(w, Products::bf16x3).sizes(), (at::IntArrayRef{2 * out, in}));
    EXPECT_LT(error(times(x, w.t(), Products::bf16x3), forward), tolerance);
    EXPECT_LT(error(times(y, w, Products::bf16x3), back), tolerance);
    EXPECT_TRUE(at::equal(times(x, w.t(), Products::bf16), times(x, w.to(at::kFloat).t(), Products::bf16)));
    const Tensor factor = left_factor(y, Products::bf16x3);
    for (const Tensor& left : {y, factor, factor.narrow(2, out, 2 * out).contiguous()}) {  // [lo | hi]
      Tensor sum = at::ones({2, rows, in}, at::kFloat);
      add_times(sum, left, w, Products::bf16x3);
      EXPECT_LT(error(sum, back + 1), tolerance);
    }
  }
}

}  // namespace
}  // namespace hesper::test
