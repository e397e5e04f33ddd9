// Bars against formulas written out, and against repeated runs on matrices whose diagonal is known.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "hessian/diagonal_moments.h"
#include "hessian/probes.h"

namespace hesper {
namespace {

double gap(const at::Tensor& a, const at::Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }
constexpr double kRounding = 1e-13;  // fp64, some hundred additions

TEST(DiagonalMoments, FormulasWrittenOut) {
  at::manual_seed(1);
  constexpr int64_t b = 4, m = 6, n = 5;
  const at::Tensor z = at::randn({b, m, n}, at::kDouble) + at::randn({b, 1, n}, at::kDouble);
  DiagonalMoments moments(n, b);
  for (int64_t s = 0; s < b; ++s) {
    moments.begin_visit(s);
    moments.add(z[s].slice(0, 0, 4));
    moments.add(z[s].slice(0, 4));
  }
  const DiagonalBars bars = moments.bars();
  EXPECT_EQ(bars.groups, b);
  EXPECT_EQ(bars.samples, m);
  EXPECT_EQ(bars.probe_degrees, (m - 1) * b);
  EXPECT_LE(gap(bars.mean, z.flatten(0, 1).mean(0)), kRounding);
  const at::Tensor probe = z.var(1, true).sum(0) / (m * b * b);
  EXPECT_LE(gap(bars.probe, probe), kRounding);
  EXPECT_LE(gap(bars.data(), z.mean(1).var(0, true) / b - probe), kRounding);

  const RelativeBars whole = relative_bars(bars);
  const double norm = bars.mean.square().sum().item<double>(), p = probe.sum().item<double>();
  EXPECT_NEAR(whole.probe.value, std::sqrt(p / (norm - p)), 1e-12);
}

// Several visits: the variance is pooled inside visits, the mean is over all samples; chunks change nothing.
TEST(DiagonalMoments, VisitsPool) {
  at::manual_seed(2);
  constexpr int64_t b = 3, n = 7;
  const at::Tensor z = at::randn({b, 10, n}, at::kDouble);
  DiagonalMoments moments(n, b);
  for (const auto& [begin, end, chunk] : {std::tuple{0, 4, 3}, std::tuple{4, 10, 1}})
    for (int64_t s = 0; s < b; ++s) {
      moments.begin_visit(s);
      for (int64_t k = begin; k < end; k += chunk) moments.add(z[s].slice(0, k, std::min<int64_t>(k + chunk, end)));
    }
  const DiagonalBars bars = moments.bars();
  EXPECT_LE(gap(bars.mean, z.flatten(0, 1).mean(0)), kRounding);
  const at::Tensor squares = z.slice(1, 0, 4).var(1, true) * 3 + z.slice(1, 4).var(1, true) * 5;
  EXPECT_LE(gap(bars.probe, squares.sum(0) / (8 * 10 * b * b)), kRounding);
  moments.begin_visit(0);
  moments.add(z[0].slice(0, 0, 1));
  EXPECT_THROW(moments.bars(), std::logic_error);
}

// Samples that were reduced together, as a GPU's are: the same bars.
TEST(DiagonalMoments, TogetherAsOneByOne) {
  at::manual_seed(3);
  constexpr int64_t b = 3, m = 9, n = 11;
  const at::Tensor z = at::randn({b, m, n}, at::kDouble) * 0.1 + at::randn({b, 1, n}, at::kDouble);
  DiagonalMoments one_by_one(n, b), together(n, b);
  for (int64_t s = 0; s < b; ++s) {
    one_by_one.begin_visit(s);
    one_by_one.add(z[s]);
    together.begin_visit(s);
    for (const auto& [begin, end] : {std::pair{0, 4}, {4, 5}, {5, 9}})
      together.add(moments_of(z[s].slice(0, begin, end)));
  }
  const DiagonalBars a = together.bars(), wanted = one_by_one.bars();
  EXPECT_EQ(a.samples, wanted.samples);
  EXPECT_EQ(a.probe_degrees, wanted.probe_degrees);
  EXPECT_LE(gap(a.mean, wanted.mean), kRounding);
  EXPECT_LE(gap(a.probe, wanted.probe), kRounding);
  EXPECT_LE(gap(a.total, wanted.total), kRounding);
}

TEST(DiagonalMoments, GroupsAreContiguousAndEven) {
  EXPECT_EQ(window_groups(3), 3);
  EXPECT_EQ(window_groups(140), 10);
  std::vector<int64_t> sizes(10, 0);
  for (int64_t s = 0; s < 57; ++s) {
    const int64_t g = group_of(s, 57);
    ++sizes[g];
    EXPECT_TRUE(s == 0 || g - group_of(s - 1, 57) <= 1);
    EXPECT_TRUE(s == 0 || g - group_of(s - 1, 57) >= 0);
  }
  for (const int64_t size : sizes) EXPECT_TRUE(size == 5 || size == 6) << size;
}

TEST(DiagonalMoments, SaysWhatItCannotKnow) {
  DiagonalMoments one(2, 1);
  one.begin_visit(0);
  one.add(at::ones({1, 2}, at::kDouble));
  EXPECT_FALSE(one.bars().probe.defined());
  EXPECT_EQ(relative_bars(one.bars()).probe.state, Bar::State::too_few);
  EXPECT_EQ(relative_bars(one.bars()).data.state, Bar::State::too_few);

  // The same samples in both windows: no spread between them, less than the probes' noise explains.
  DiagonalMoments same(1, 2);
  for (int64_t s = 0; s < 2; ++s) {
    same.begin_visit(s);
    same.add(at::tensor({-3.0, 5.0}, at::kDouble).view({2, 1}));
  }
  const RelativeBars bars = relative_bars(same.bars());
  EXPECT_EQ(bars.data.state, Bar::State::below_probe_noise);
  EXPECT_EQ(bars.probe.state, Bar::State::not_resolved);  // mean 1, variance 32 / (2 * 4) * 2 = 8
  EXPECT_TRUE(entry_errors(same.bars()).data.isnan().all().item<bool>());
  EXPECT_EQ(say_relative(bars.data), "below probe noise");

  DiagonalMoments exact(1, 2, Samples::exact);
  for (int64_t s = 0; s < 2; ++s) {
    exact.begin_visit(s);
    exact.add(at::full({1, 1}, s == 0 ? 1.0 : 3.0, at::kDouble));
  }
  const RelativeBars known = relative_bars(exact.bars());
  EXPECT_EQ(known.probe.value, 0);
  EXPECT_NEAR(known.data.value, std::sqrt(1.0 / 3), 1e-15);  // variance 2 / 2 = 1, mean 2: 1 / (4 - 1)
}

}  // namespace
}  // namespace hesper
