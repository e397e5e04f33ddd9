// Sweeps of a golden model: every point against a run of its own.
#include "run/sweep.h"

#include <gtest/gtest.h>

#include <cmath>

#include "run/golden_run.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

constexpr double kTolerance = 1e-12;  // fp64 sums of some thousand terms, as in tests/oracle
double gap(const at::Tensor& a, const at::Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }
double total(const at::Tensor& t) { return t.sum().item<double>(); }
double squares(const at::Tensor& t) { return total(t.square()); }

class Sweep : public testing::Test {
 protected:
  static constexpr int64_t b = 7;

  Sweep() {
    at::manual_seed(5);
    windows = test::windows_of(at::randint(model.config().vocab, {b, 10}, at::kLong));
    exact.precision = sweep.options.precision = at::kDouble;
    sweep.options.probes = 6;
  }
  Windows some(int64_t begin, int64_t end) const {
    Windows out{windows.ids.slice(0, begin, end), windows.labels.slice(0, begin, end), {}, b};
    out.index.assign(windows.index.begin() + begin, windows.index.begin() + end);
    return out;
  }
  at::Tensor block(int64_t begin, int64_t end) const {
    return compute_exact(model, few.selection, some(begin, end), exact).blocks[0].matrix;
  }
  TensorDiagonal diagonal(int64_t begin, int64_t end, int64_t probes) const {
    DiagOptions options = sweep.options;
    options.probes = probes;
    return compute_diag(model, layer, unit_sums(model, layer, 128), some(begin, end), options).tensors[0];
  }
  at::Tensor truth_of(const ResolvedSelection& selection) const {
    return compute_exact_diag(model, selection, unit_sums(model, selection, 128), windows, sweep.options)
        .tensors[0]
        .entries.mean;
  }
  static const SweepColumn& column(const SweepResult& r, const std::string& name) {
    for (const SweepColumn& c : r.columns)
      if (c.name == name) return c;
    throw std::logic_error("no column " + name);
  }
  static SelectionRequest first(int64_t t) {
    SelectionRequest request;
    request.t = t;
    return request;
  }
  static SelectionRequest rows(int64_t begin, int64_t end) {
    SelectionRequest request;
    request.rows = IndexRange{begin, end};
    return request;
  }

  const Model model = load_model(test::golden_folder("opt-pre"));
  const ResolvedSelection few = test::select(model, first(6)), layer = test::select(model, SelectionRequest{});
  Windows windows;
  ExactOptions exact;
  DiagSweep sweep;
};

// The Gram pass, and two-pass products whose rows come in slices with the windows of a batch inside each.
TEST_F(Sweep, BlocksEqualRunsOfTheirOwn) {
  const at::Tensor all = block(0, b);
  for (const bool sliced : {false, true}) {
    if (sliced) exact.pass = Pass::two_pass, exact.directions = 4, exact.batch = 3;
    const SweepResult r = sweep_exact(model, few.selection, windows, exact);
    EXPECT_EQ(r.points, (std::vector<int64_t>{1, 2, 4, 7}));
    EXPECT_NEAR(r.norm, all.norm().item<double>(), kTolerance * r.norm);
    for (size_t i = 0; i + 1 < r.points.size(); ++i)
      EXPECT_NEAR(column(r, "distance").values[i], gap(block(0, r.points[i]), all), kTolerance);
    EXPECT_NEAR(column(r, "distance").values[3], 0, kTolerance);
    // Sets of 2 windows: one pair of them in 7 windows; of 1 window: three pairs.
    const double two = squares(block(0, 2) - block(2, 4)) / 2, norm = squares(all);
    EXPECT_NEAR(column(r, "disjoint_sets").values[1], std::sqrt(two / norm), kTolerance);
    EXPECT_TRUE(std::isnan(column(r, "disjoint_sets").errors[1]));
    double mean = 0, spread = 0;
    std::vector<double> pairs;
    for (int64_t s = 0; s < 6; s += 2) pairs.push_back(squares(block(s, s + 1) - block(s + 1, s + 2)) / 2);
    for (const double d : pairs) mean += d / 3;
    for (const double d : pairs) spread += (d - mean) * (d - mean);
    EXPECT_NEAR(column(r, "disjoint_sets").values[0], std::sqrt(mean / norm), kTolerance);
    EXPECT_NEAR(column(r, "disjoint_sets").errors[0], std::sqrt(spread / 6) / (2 * std::sqrt(mean * norm)), kTolerance);
    EXPECT_TRUE(std::isnan(column(r, "disjoint_sets").values[2]));
    // With all windows, what exact itself reports.
    const double data = *compute_exact(model, few.selection, windows, exact).blocks[0].data_error;
    EXPECT_NEAR(column(r, "window_error").values[3], data, kTolerance);
    EXPECT_NEAR(column(r, "window_error").values[0], data * std::sqrt(7.0), kTolerance);
    const nlohmann::json& less = r.notes.at("norm_less_spread");
    ASSERT_EQ(less.is_null(), data >= 1);
    if (data < 1) {
      EXPECT_NEAR(less.get<double>(), std::sqrt(norm * (1 - data * data)), kTolerance);
    }
    EXPECT_NEAR(column(r, "expected_distance").values[0], data * std::sqrt(6.0), kTolerance);
  }
}

TEST_F(Sweep, DiagonalsOverWindowsEqualRunsOfTheirOwn) {
  for (const DiagMethod method : {DiagMethod::hutchinson, DiagMethod::split}) {
    sweep.options.method = method;
    const DiagonalBars all = diagonal(0, b, 6).entries;
    const SweepResult r = sweep_diag_over_windows(model, layer, windows, sweep);
    EXPECT_EQ(r.products, b * 6);
    const double debiased = squares(all.mean) - total(all.probe);
    EXPECT_NEAR(r.norm, std::sqrt(debiased > 0 ? debiased : squares(all.mean)), 1e-9);
    for (size_t i = 0; i + 1 < r.points.size(); ++i) {
      const at::Tensor d = diagonal(0, r.points[i], 6).entries.mean;
      EXPECT_NEAR(column(r, "distance").values[i], (d - all.mean).norm().item<double>() / r.norm, 1e-10);
    }
    // 7 windows are 7 groups: the spread is diag's total bar; the probe bar at all windows is diag's own.
    EXPECT_NEAR(column(r, "window_error").values[3], std::sqrt(total(all.total)) / r.norm, 1e-10);
    EXPECT_NEAR(column(r, "probe_error").values[3], std::sqrt(total(all.probe)) / r.norm, 1e-10);
  }
  sweep.exact = true;
  const ResolvedSelection some_rows = test::select(model, rows(2, 4));
  const SweepResult r = sweep_diag_over_windows(model, some_rows, windows, sweep);
  const auto of = [&](int64_t end) {
    return compute_exact_diag(model, some_rows, unit_sums(model, some_rows, 128), some(0, end), sweep.options)
        .tensors[0]
        .entries.mean;
  };
  for (size_t i = 0; i + 1 < r.points.size(); ++i)
    EXPECT_NEAR(column(r, "distance").values[i], gap(of(r.points[i]), of(b)), 1e-10);
  EXPECT_THROW(column(r, "probe_error"), std::logic_error);
}

TEST_F(Sweep, ProbesEqualRunsOfTheirOwn) {
  const DiagonalBars all = diagonal(0, b, 6).entries;
  const SweepResult r = sweep_diag_over_probes(model, layer, windows, sweep);
  EXPECT_EQ(r.points, (std::vector<int64_t>{1, 2, 4, 6}));
  EXPECT_EQ(r.products, b * 6);
  for (size_t i = 0; i < r.points.size(); ++i) {
    const DiagonalBars d = diagonal(0, b, r.points[i]).entries;
    EXPECT_NEAR(column(r, "distance").values[i], (d.mean - all.mean).norm().item<double>() / r.norm, 1e-10);
    const double bar = column(r, "probe_error").values[i];
    if (i == 0) {
      EXPECT_TRUE(std::isnan(bar));  // one probe a window has no spread
    } else {
      EXPECT_NEAR(bar, std::sqrt(total(d.probe)) / r.norm, 1e-10);
    }
    EXPECT_NEAR(column(r, "inverse_root").values[i],
                std::sqrt(total(all.probe) * 6 / static_cast<double>(r.points[i])) / r.norm, 1e-10);
  }
  // Against exact rows: of their entries alone.
  sweep.truth = test::select(model, rows(3, 5));
  const SweepResult with_truth = sweep_diag_over_probes(model, layer, windows, sweep);
  const at::Tensor truth = truth_of(*sweep.truth);
  EXPECT_NEAR(with_truth.norm, truth.norm().item<double>(), kTolerance);
  for (size_t i = 0; i < r.points.size(); ++i) {
    const DiagonalBars d = diagonal(0, b, r.points[i]).entries.slice(3 * 16, 5 * 16);
    EXPECT_NEAR(column(with_truth, "true_error").values[i], gap(d.mean, truth), 1e-10);
    if (i > 0) {
      EXPECT_NEAR(column(with_truth, "probe_error").values[i], std::sqrt(total(d.probe)) / truth.norm().item<double>(),
                  1e-10);
    }
  }
}

// The bars of a sweep mean what they say: squared true errors over squared bars, 256 coupled entries and 512 probes.
TEST_F(Sweep, TrueErrorsFollowTheBars) {
  sweep.options.probes = 512;
  sweep.truth = layer;
  const SweepResult r = sweep_diag_over_probes(model, layer, some(0, 2), sweep);
  for (size_t i = 4; i < r.points.size(); ++i)
    EXPECT_NEAR(column(r, "true_error").values[i] / column(r, "probe_error").values[i], 1, 0.35) << r.points[i];
}

TEST_F(Sweep, IsTheSameHoweverItIsCut) {
  const auto values = [](const SweepResult& r) {
    std::vector<double> out;
    for (const SweepColumn& c : r.columns) out.insert(out.end(), c.values.begin(), c.values.end());
    return out;
  };
  const std::vector<double> once = values(sweep_diag_over_probes(model, layer, windows, sweep)),
                            windows_once = values(sweep_diag_over_windows(model, layer, windows, sweep));
  const auto expect_near = [](const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(std::isnan(a[i]), std::isnan(b[i]));
      if (!std::isnan(a[i])) {
        EXPECT_NEAR(a[i], b[i], tolerance);
      }
    }
  };
  expect_near(values(sweep_diag_over_probes(model, layer, windows, sweep)), once, 0);
  sweep.options.directions = 4;
  sweep.options.batch = 3;
  expect_near(values(sweep_diag_over_probes(model, layer, windows, sweep)), once, 1e-10);
  expect_near(values(sweep_diag_over_windows(model, layer, windows, sweep)), windows_once, 1e-10);
}

TEST_F(Sweep, PlansWhatItKeeps) {
  const Plan run = plan_diag(model, layer, unit_sums(model, layer, 128), windows, sweep.options);
  EXPECT_GE(plan_sweep_over_windows(model, layer, windows, sweep).memory.result, run.memory.result + 8 * 256 * 8);
  EXPECT_GE(plan_sweep_over_probes(model, layer, windows, sweep).memory.result,
            run.memory.result + 4 * (7 + 2 + 3) * 256 * 8);
  EXPECT_GE(plan_sweep_exact(model, few.selection, windows, exact).memory.result,
            plan_exact(model, few.selection, windows, exact).memory.result + 8 * 36 * 8);
}

TEST_F(Sweep, Refusals) {
  const auto refusal = [&](auto f) { return error_of<std::invalid_argument>(f); };
  EXPECT_NE(
      refusal([&] { sweep_exact(model, few.selection, some(0, 1), exact); }).find("--b 1: a sweep needs at least 2"),
      std::string::npos);
  EXPECT_NE(refusal([&] { plan_sweep_over_windows(model, layer, some(0, 1), sweep); }).find("--b 1"),
            std::string::npos);
  sweep.truth = layer;
  EXPECT_NE(refusal([&] {
              sweep_diag_over_probes(model, few, windows, sweep);
            }).find("--truth: 250 of its 256 entries are not among the 6 selected"),
            std::string::npos);
  sweep.truth.reset();
  sweep.options.probes = 1;
  EXPECT_NE(refusal([&] { sweep_diag_over_probes(model, layer, windows, sweep); }).find("--probes 1"),
            std::string::npos);
  SelectionRequest two;
  two.layers = {"q_proj", "fc1"};
  EXPECT_NE(refusal([&] {
              plan_sweep_over_windows(model, test::select(model, two), windows, sweep);
            }).find("one layer, 2 are selected"),
            std::string::npos);
}

}  // namespace
}  // namespace hesper
