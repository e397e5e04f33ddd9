// Runs done in parts, each from its own process as far as it knows, and joined: the result of the whole to fp64
// rounding, whatever the precision of the passes (a window's own numbers are the same bits; only the sums over windows
// are taken in another order).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "hessian/named_directions.h"
#include "run/fisher.h"
#include "run/golden_run.h"
#include "run/merge.h"
#include "run/quadratic.h"
#include "run/run_numbers.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;
using test::all_of;
using test::select;

// Sums of b = 5 windows in two orders, and what is read from their differences: variances lose about two digits.
constexpr double kRounding = 1e-13, kOfVariances = 1e-11;

class Parts : public testing::Test {
 protected:
  Parts() {
    at::manual_seed(5);
    windows = test::windows_of(at::randint(4, 40, {5, 12}, at::kLong));
  }
  ResolvedSelection layers(std::vector<std::string> names, std::optional<IndexRange> rows = {}) const {
    SelectionRequest request;
    request.layers = std::move(names);
    request.rows = rows;
    return select(model, request);
  }
  std::vector<UnitSums> sums(const ResolvedSelection& selection) const { return unit_sums(model, selection, 128); }
  Snapshots snapshots(const fs::path& file) const {
    Snapshots out(
        file,
        [] {
          return nlohmann::json{{"what", 1}};
        },
        3600);
    out.origin = {{"command", "test"}};
    return out;
  }
  template <class Run>
  fs::path run_part(Run run, int64_t number, int64_t of) const {
    const fs::path file = folder / fmt::format("{}of{}.part", number, of);
    Snapshots own = snapshots(file);
    RunControl control;
    control.snapshots = &own;
    control.part = {number, of};
    EXPECT_THROW(run(control), PartDone);
    return file;
  }
  template <class Run>
  void expect_same(Run run, int64_t of = 3) const {
    const Tensors whole = run(RunControl{});
    std::vector<fs::path> files;
    for (int64_t number = of; number >= 1; --number) files.push_back(run_part(run, number, of));
    Snapshots joined = snapshots(folder / "whole.snapshot");
    joined.from = merge_parts(files).state;
    RunControl control;
    control.snapshots = &joined;
    int64_t steps = 0;
    control.on_progress = [&](const Progress&) { ++steps; };
    const Tensors merged = run(control);
    EXPECT_EQ(steps, 0) << "something was computed again";
    ASSERT_EQ(merged.size(), whole.size());
    for (size_t i = 0; i < whole.size(); ++i)
      EXPECT_TRUE(test::near(merged[i], whole[i], i % 3 == 0 ? kRounding : kOfVariances)) << i;
  }
  const TemporaryFolder folder;
  const Model model = load_model(test::golden_folder("opt-pre"));
  Windows windows;
};

TEST_F(Parts, Exact) {
  const ResolvedSelection some = layers({"q_proj"}, IndexRange{0, 1});
  for (const int64_t batch : {1, 2}) {
    ExactOptions options;
    options.curvatures = {Curvature::hessian, Curvature::gauss_newton};
    options.full_errors = true;
    options.batch = batch;
    expect_same([&](const RunControl& c) {
      const ExactResult r = compute_exact(model, some.selection, windows, options, c);
      return Tensors{r.blocks[0].matrix,
                     r.blocks[0].standard_error,
                     at::scalar_tensor(*r.blocks[0].data_error, at::kDouble),
                     r.blocks[1].matrix,
                     r.blocks[1].standard_error,
                     at::scalar_tensor(*r.precision_error, at::kDouble),
                     r.gradient,
                     r.losses};
    });
  }
}

TEST_F(Parts, Diagonals) {
  const ResolvedSelection two = layers({"q_proj", "fc1"});
  DiagOptions options;
  options.probes = 9;
  options.directions = 4;
  const auto run = [&](const RunControl& c) {
    return all_of(compute_diag(model, two, sums(two), windows, options, c));
  };
  expect_same(run);
  options.scope = ProbeScope::joint;
  options.method = DiagMethod::split;
  options.batch = 2;
  expect_same(run, 2);
  expect_same(
      [&](const RunControl& c) { return all_of(compute_exact_diag(model, two, sums(two), windows, options, c)); });
}

TEST_F(Parts, Fisher) {
  const ResolvedSelection one = layers({"q_proj"});
  for (const FisherKind kind :
       {FisherKind::batch, FisherKind::sequence, FisherKind::token, FisherKind::gauss_newton, FisherKind::input_gram}) {
    FisherOptions options;
    options.kind = kind;
    options.probes = 6;
    options.batch = 2;
    expect_same([&](const RunControl& c) {
      const FisherResult r = compute_fisher(model, one, sums(one), windows, options, c);
      Tensors out = all_of(r.diagonal);
      out.insert(out.end(), r.grams.begin(), r.grams.end());
      return out;
    });
  }
}

TEST_F(Parts, SweepOverProbes) {
  const ResolvedSelection layer = layers({"v_proj"});
  DiagSweep sweep;
  sweep.options.probes = 9;
  expect_same([&](const RunControl& c) { return all_of(sweep_diag_over_probes(model, layer, windows, sweep, c)); });
}

TEST_F(Parts, Quadratic) {
  Weights other = model.weights;
  for (Tensor& value : other.values) value = value + 1e-3 * at::randn_like(value);
  const NamedDirections directions = directions_between(model.weights, other, Grouping::layer);
  windows = test::windows_of(at::randint(4, 40, {5, 12}, at::kLong));
  QuadraticOptions options;
  options.steps.clear();
  expect_same([&](const RunControl& c) {
    const QuadraticResult r = compute_quadratic(model, directions, windows, options, c);
    return Tensors{r.hessian.mean, r.hessian.standard_error, r.gradient.standard_error, r.losses};
  });
}

// What must look at all windows on the way says so, and says what has parts.
TEST_F(Parts, OrderedStagesHaveNone) {
  const ResolvedSelection one = layers({"v_proj"});
  DiagOptions options;
  const auto refusal = [&](const auto& run) -> std::string {
    Snapshots own = snapshots(folder / "refused.part");
    RunControl control;
    control.snapshots = &own;
    control.part = {1, 2};
    try {
      run(control);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "nothing was refused";
  };
  const auto diag = [&](const RunControl& c) { compute_diag(model, one, sums(one), windows, options, c); };
  options.method = DiagMethod::krylov;
  EXPECT_NE(refusal(diag).find("--parts 1/2: --method krylov"), std::string::npos);
  options = {};
  options.rule = StopRule{};
  EXPECT_NE(refusal(diag).find("--parts 1/2: --rel-error"), std::string::npos);
  options = {};
  options.scope = ProbeScope::automatic;
  EXPECT_NE(refusal(diag).find("--parts 1/2: --probe-scope auto"), std::string::npos);
  options = {};
  options.method = DiagMethod::automatic;
  EXPECT_NE(refusal([&](const RunControl& c) {
              compute_auto_diag(model, one, sums(one), windows, options, c);
            }).find("--parts 1/2: --method auto"),
            std::string::npos);
  DiagSweep sweep;
  EXPECT_NE(refusal([&](const RunControl& c) {
              sweep_diag_over_windows(model, one, windows, sweep, c);
            }).find("--parts 1/2: a sweep over b"),
            std::string::npos);
  const auto too_many = [&](RunControl c) {
    c.part = {1, 6};
    compute_diag(model, one, sums(one), windows, {}, c);
  };
  EXPECT_NE(refusal(too_many).find("--parts 1/6: there are only 5 windows"), std::string::npos) << refusal(too_many);
}

class Merge : public Parts {
 protected:
  /// A finished part with windows [first, end) of 6, three steps each.
  fs::path part(const std::string& name, int64_t first, int64_t end,
                const nlohmann::json& configuration = {{"seed", 1}}, double steps = 3) const {
    SavedState saved;
    saved.configuration = configuration;
    saved.origin = {{"command", "test"}};
    saved.state.plan = {{"directions", 4}};
    saved.state.first = first, saved.state.end = end, saved.state.steps = 3;
    Tensor done = at::zeros({6}, at::kDouble);
    done.slice(0, first, end).fill_(steps);
    saved.state.tensors = {{"done", done}, {"sum", at::full({2}, static_cast<double>(end - first), at::kDouble)}};
    write_state(folder / name, saved);
    return folder / name;
  }
  static void expect_refusal(const std::vector<fs::path>& files, const std::vector<std::string>& words) {
    try {
      merge_parts(files);
      FAIL() << "merged";
    } catch (const std::exception& error) {
      for (const std::string& word : words)
        EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
    }
  }
};

TEST_F(Merge, Adds) {
  const SavedState whole = merge_parts({part("b", 4, 6), part("a", 0, 4)});
  EXPECT_EQ(whole.state.first, 0);
  EXPECT_EQ(whole.state.end, 6);
  EXPECT_EQ(whole.state.tensor("sum", {2})[0].item<double>(), 6);
  EXPECT_EQ(whole.state.tensor("done", {6}).min().item<double>(), 3);
}

TEST_F(Merge, RefusesByName) {
  const fs::path a = part("a", 0, 3), b = part("b", 3, 6);
  expect_refusal({a, part("c", 2, 6)}, {"a and ", "c both hold window 2"});
  expect_refusal({a, a, b}, {"both hold windows 0 to 2"});
  expect_refusal({b}, {"windows 0 to 2 missing"});
  expect_refusal({a, part("d", 4, 6)}, {"window 3 missing"});
  expect_refusal({a}, {"windows 3 to 5 missing"});
  expect_refusal({a, part("e", 3, 6, {{"seed", 2}})}, {"e is of another run than ", "seed 1, now 2"});
  expect_refusal({a, part("f", 3, 6, {{"seed", 1}}, 2)}, {"f: unfinished, 6 of 9 steps"});
  std::ofstream(folder / "torn") << "torn";
  expect_refusal({a, folder / "torn"}, {"torn"});
}

}  // namespace
}  // namespace hesper
