// Every kind of run, stopped again and again between its steps and begun anew from the file it left: the result is bit
// for bit that of a run which was not stopped.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include "hessian/named_directions.h"
#include "run/diag.h"
#include "run/fisher.h"
#include "run/golden_run.h"
#include "run/quadratic.h"
#include "run/run_numbers.h"
#include "run/sweep.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

using test::all_of;
using test::same;
using test::select;

class Resume : public testing::Test {
 protected:
  ResolvedSelection layers(std::vector<std::string> names, std::optional<IndexRange> rows = {}) const {
    SelectionRequest request;
    request.layers = std::move(names);
    request.rows = rows;
    return select(model, request);
  }
  std::vector<UnitSums> sums(const ResolvedSelection& selection) const { return unit_sums(model, selection, 128); }

  /// run(control): a whole run's numbers. Stopped at every `every`-th question, for several of them.
  template <class Run>
  void expect_same(Run run, std::vector<int> intervals = {1, 2, 7}) const {
    const Tensors whole = run(RunControl{});
    for (const int every : intervals) {
      Tensors pieces;
      int starts = 0;
      for (bool done = false; !done; ++starts) {
        ASSERT_LT(starts, 2000);
        Snapshots snapshots(
            folder / fmt::format("{}.snapshot", every),
            [] {
              return nlohmann::json{{"what", 1}};
            },
            3600);
        snapshots.from = snapshots.load();
        int asked = 0;
        RunControl control;
        control.stop = [&] { return ++asked > every; };
        control.snapshots = &snapshots;
        try {
          pieces = run(control);
          done = true;
        } catch (const Interrupted& stopped) {
          ASSERT_NE(std::string(stopped.what()).find("snapshot saved"), std::string::npos) << stopped.what();
        }
        if (done) snapshots.remove();
      }
      EXPECT_GT(starts, 1) << "never stopped";
      ASSERT_EQ(pieces.size(), whole.size());
      for (size_t i = 0; i < whole.size(); ++i) EXPECT_TRUE(same(whole[i], pieces[i])) << every << ": " << i;
    }
  }

  const TemporaryFolder folder;
  const Model model = load_model(test::golden_folder("opt-pre"));
  const Windows windows = test::golden_windows("opt-pre");
};

class ResumeDiag : public Resume {
 protected:
  ResumeDiag() { options.directions = 3; }
  void expect(const ResolvedSelection& selection, std::vector<int> intervals = {1, 2, 7}) const {
    expect_same(
        [&](const RunControl& c) {
          return all_of(compute_diag(model, selection, sums(selection), windows, options, c));
        },
        std::move(intervals));
  }
  DiagOptions options;
};

TEST_F(Resume, Exact) {
  const ResolvedSelection some = layers({"q_proj"}, IndexRange{0, 1});
  for (const auto& [pass, batch] : {std::pair{Pass::gram, 1}, {Pass::two_pass, 1}, {Pass::two_pass, 2}}) {
    ExactOptions options;
    options.curvatures = {Curvature::hessian, Curvature::residual};
    options.pass = pass;
    if (pass == Pass::two_pass) options.directions = 5;
    options.batch = batch;
    options.full_errors = true;
    expect_same(
        [&](const RunControl& c) {
          const ExactResult r = compute_exact(model, some.selection, windows, options, c);
          return Tensors{r.blocks[0].matrix,
                         r.blocks[0].standard_error,
                         r.blocks[1].matrix,
                         r.gradient,
                         r.losses,
                         at::scalar_tensor(*r.blocks[0].data_error, at::kDouble),
                         at::scalar_tensor(*r.precision_error, at::kDouble)};
        },
        {1, 2});
  }
}

TEST_F(ResumeDiag, Hutchinson) {
  options.probes = 10;
  expect(layers({"q_proj", "fc1"}));
  options.scope = ProbeScope::automatic;
  options.batch = 2;
  expect(layers({"q_proj", "fc1"}));
}

TEST_F(ResumeDiag, Split) {
  options.method = DiagMethod::split;
  options.scope = ProbeScope::joint;
  options.probes = 8;
  expect(layers({"v_proj", "fc2"}), {1, 2, 4});
}

TEST_F(ResumeDiag, UntilAnError) {
  options.probes = 60;
  options.rule = StopRule{0.3, StopOf::diagonal, DiagTarget::windows};
  expect(layers({"v_proj", "fc1"}));
}

TEST_F(ResumeDiag, Krylov) {
  options.method = DiagMethod::krylov;
  options.probes = 64;
  expect(layers({"v_proj", "q_proj"}), {3, 20});
  options.rule = StopRule{0.2, StopOf::trace, DiagTarget::windows};
  expect(layers({"v_proj"}), {5});
}

TEST_F(ResumeDiag, Automatic) {
  options.method = DiagMethod::automatic;
  options.probes = 96;
  const ResolvedSelection both = layers({"v_proj", "fc1"});
  // A tensor's pilot is one step: stops inside it begin it again, so the interval must outlast it.
  expect_same(
      [&](const RunControl& c) { return all_of(compute_auto_diag(model, both, sums(both), windows, options, c)); },
      {40, 60});
}

TEST_F(ResumeDiag, ExactDiagonal) {
  const ResolvedSelection two = layers({"fc2", "fc1.bias"});
  for (const int64_t directions : {0, 8}) {
    options.directions = directions;
    expect_same(
        [&](const RunControl& c) { return all_of(compute_exact_diag(model, two, sums(two), windows, options, c)); },
        {3, 50});
  }
}

TEST_F(Resume, Fisher) {
  const ResolvedSelection two = layers({"q_proj", "fc1"});
  for (const FisherKind kind :
       {FisherKind::batch, FisherKind::sequence, FisherKind::token, FisherKind::gauss_newton, FisherKind::input_gram}) {
    const ResolvedSelection one = layers({"q_proj"});
    const ResolvedSelection& of = kind == FisherKind::input_gram ? one : two;
    FisherOptions options;
    options.kind = kind;
    options.probes = 7;
    options.directions = is_sampled(kind) ? 2 : 0;
    options.batch = kind == FisherKind::batch ? 1 : 2;
    expect_same(
        [&](const RunControl& c) {
          const FisherResult r = compute_fisher(model, of, sums(of), windows, options, c);
          Tensors out = all_of(r.diagonal);
          out.insert(out.end(), r.grams.begin(), r.grams.end());
          return out;
        },
        {1, 2});
  }
}

TEST_F(Resume, Sweeps) {
  const ResolvedSelection few = layers({"q_proj"}, IndexRange{0, 1}), layer = layers({"v_proj"});
  ExactOptions exact;
  exact.pass = Pass::two_pass;
  exact.directions = 5;
  expect_same([&](const RunControl& c) { return all_of(sweep_exact(model, few.selection, windows, exact, c)); },
              {1, 4});
  DiagSweep sweep;
  sweep.options.probes = 9;
  sweep.options.directions = 2;
  expect_same([&](const RunControl& c) { return all_of(sweep_diag_over_windows(model, layer, windows, sweep, c)); });
  sweep.truth = layers({"v_proj"}, IndexRange{0, 2});
  expect_same([&](const RunControl& c) { return all_of(sweep_diag_over_probes(model, layer, windows, sweep, c)); });
  sweep.truth.reset();
  sweep.exact = true;
  expect_same([&](const RunControl& c) { return all_of(sweep_diag_over_windows(model, layer, windows, sweep, c)); },
              {4});
}

TEST_F(Resume, Quadratic) {
  Weights other = model.weights;
  at::manual_seed(3);
  for (Tensor& value : other.values) value = value + 1e-3 * at::randn_like(value);
  const NamedDirections directions = directions_between(model.weights, other, Grouping::layer);
  QuadraticOptions options;
  options.actual_each = options.rank = true;
  options.batch = 2;
  expect_same([&](const RunControl& c) {
    const QuadraticResult r = compute_quadratic(model, directions, windows, options, c);
    Tensors out = {r.losses,
                   r.gradient.mean,
                   r.hessian.mean,
                   r.hessian.standard_error,
                   r.actual_each->mean,
                   r.actual_each->standard_error};
    for (const LineStep& step : r.line) out.push_back(at::scalar_tensor(step.actual, at::kDouble));
    for (const RankColumn& column : r.ranking) out.push_back(column.values);
    return out;
  });
}

}  // namespace
}  // namespace hesper
