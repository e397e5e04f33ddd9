// Distances between means over windows against sums written out.
#include "hessian/window_prefixes.h"

#include <gtest/gtest.h>

#include <cmath>

namespace hesper {
namespace {

double squared(const at::Tensor& t) { return t.square().sum().item<double>(); }

TEST(WindowPrefixes, EqualSumsWrittenOut) {
  at::manual_seed(1);
  for (const int64_t b : {2, 3, 7, 8, 13}) {
    const at::Tensor y = at::randn({b, 5}, at::kDouble);
    WindowPrefixes prefixes(5, b);
    for (int64_t s = 0; s < b; ++s) prefixes.add(y[s]);
    const auto mean = [&](int64_t begin, int64_t end) { return y.slice(0, begin, end).mean(0); };
    EXPECT_NEAR(prefixes.squared_norm(), squared(mean(0, b)), 1e-12);
    EXPECT_NEAR(prefixes.sum_of_squares(), squared(y), 1e-12);
    for (int64_t p = 1; p < b; p *= 2)
      EXPECT_NEAR(prefixes.squared_distance(p), squared(mean(0, p) - mean(0, b)), 1e-12);
    int64_t p = 1;
    for (const std::vector<double>& level : prefixes.disjoint()) {
      ASSERT_EQ(level.size(), static_cast<size_t>(b / (2 * p))) << b << " windows, sets of " << p;
      for (size_t i = 0; i < level.size(); ++i) {
        const int64_t begin = 2 * p * static_cast<int64_t>(i);
        EXPECT_NEAR(level[i], squared(mean(begin, begin + p) - mean(begin + p, begin + 2 * p)) / 2, 1e-12);
      }
      p *= 2;
    }
    EXPECT_GT(2 * p, b) << "every size of which there are two is there";
    EXPECT_THROW(prefixes.add(y[0]), std::logic_error);
  }
}

// Independent windows: a mean over p of them is off by sigma / sqrt p, which is what disjoint sets show and what the
// distance to all, whose windows it shares, does not. 400 runs of 5 entries: to 8%, 2.5 standard
// errors (2,000 squares of normals or more: sqrt(2 / 2000) = 3%).
TEST(WindowPrefixes, DisjointSetsSeeTheErrorSharedWindowsDoNot) {
  at::manual_seed(2);
  constexpr int64_t b = 16, runs = 400;
  std::vector<double> to_all(4, 0), sets(4, 0);
  for (int64_t run = 0; run < runs; ++run) {
    WindowPrefixes prefixes(5, b);
    const at::Tensor y = at::randn({b, 5}, at::kDouble);
    for (int64_t s = 0; s < b; ++s) prefixes.add(y[s]);
    const auto disjoint = prefixes.disjoint();
    for (size_t level = 0; level < 4; ++level) {
      to_all[level] += prefixes.squared_distance(int64_t{1} << level) / (5 * runs);
      for (const double d : disjoint[level])
        sets[level] += d / static_cast<double>(disjoint[level].size()) / (5 * runs);
    }
  }
  for (size_t level = 0; level < 4; ++level) {
    const double p = std::pow(2, level);
    EXPECT_NEAR(sets[level] * p, 1, 0.08) << p;
    EXPECT_NEAR(to_all[level] / (1 / p - 1.0 / b), 1, 0.08) << p;
  }
}

TEST(WindowPrefixes, Doublings) {
  EXPECT_EQ(doublings(1), (std::vector<int64_t>{1}));
  EXPECT_EQ(doublings(8), (std::vector<int64_t>{1, 2, 4, 8}));
  EXPECT_EQ(doublings(11), (std::vector<int64_t>{1, 2, 4, 8, 11}));
}

}  // namespace
}  // namespace hesper
