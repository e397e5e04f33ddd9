// --method krylov and auto: runs of a golden model against its exact diagonal, and choices on constructed pilots.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "model/build_program.h"
#include "run/golden_run.h"
#include "run/krylov.h"
#include "run/method_choice.h"

namespace hesper {
namespace {

using test::select;

double gap(const at::Tensor& a, const at::Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }

class Methods : public testing::Test {
 protected:
  Methods() {
    options.precision = at::kDouble;
    options.method = DiagMethod::krylov;
  }
  ResolvedSelection layers(std::vector<std::string> names) const {
    SelectionRequest request;
    request.layers = std::move(names);
    return select(model, request);
  }
  DiagonalResult run(const ResolvedSelection& selection, const Windows& of) const {
    const std::vector<UnitSums> sums = unit_sums(model, selection, 128);
    return options.method == DiagMethod::automatic ? compute_auto_diag(model, selection, sums, of, options)
                                                   : compute_diag(model, selection, sums, of, options);
  }
  at::Tensor exact(const ResolvedSelection& selection, const Windows& of) const {
    return compute_exact_diag(model, selection, unit_sums(model, selection, 128), of, options).tensors[0].entries.mean;
  }
  const Model model = load_model(test::golden_folder("opt-pre"));
  const Windows windows = test::golden_windows("opt-pre");
  DiagOptions options;
};

// One window: H has rank 160 at most of 256. Nothing is left to the probes.
TEST_F(Methods, FullRankIsExact) {
  const Windows one = test::windows_of(windows.ids.narrow(0, 0, 1));
  const ResolvedSelection q = layers({"q_proj"});
  options.probes = 600;
  const TensorDiagonal d = run(q, one).tensors[0];
  EXPECT_LE(d.notes["basis"]["vectors"].get<int64_t>(), 160);
  EXPECT_LE(gap(d.entries.mean, exact(q, one)), 1e-9);
  EXPECT_LE(relative_bars(d.entries).probe.value, 1e-9);
}

// Same seed: any number of directions at once, any batch, whatever else is selected; and m products a window in all.
TEST_F(Methods, AreTheSameHoweverTheyAreCut) {
  const ResolvedSelection q = layers({"q_proj"}), both = layers({"fc1", "q_proj"});
  options.probes = 96;
  const DiagonalResult once = run(q, windows);
  EXPECT_EQ(once.products, 96 * windows.ids.size(0));
  const TensorDiagonal& d = once.tensors[0];
  EXPECT_GE(d.notes["basis"]["vectors"].get<int64_t>(), 12);
  EXPECT_EQ(d.entries.samples, 96 - d.notes["basis"]["products"].get<int64_t>());
  // A block's directions down to 1e-6 of its longest join the basis: rounding of 1e-16 becomes 1e-10 in them.
  constexpr double tolerance = 1e-9;
  for (const int64_t directions : {1, 5})
    for (const int64_t batch : {1, 3}) {
      options.directions = directions;
      options.batch = batch;
      for (const ResolvedSelection* selection : {&q, &both}) {
        const TensorDiagonal t = run(*selection, windows).tensors[0];
        EXPECT_LE(gap(t.entries.mean, d.entries.mean), tolerance);
        EXPECT_LE(gap(t.entries.probe, d.entries.probe), tolerance);
        EXPECT_LE(gap(t.entries.total, d.entries.total), tolerance);
        EXPECT_LE(gap(t.sums.mean, d.sums.mean), tolerance);
      }
    }
}

// At equal products a smaller bar than probes alone, and an error that keeps to it.
TEST_F(Methods, KrylovBeatsProbesAlone) {
  const ResolvedSelection v = layers({"v_proj"});
  options.probes = 128;
  const DiagonalBars krylov = run(v, windows).tensors[0].entries;
  options.method = DiagMethod::hutchinson;
  const DiagonalBars plain = run(v, windows).tensors[0].entries;
  const double bar = std::sqrt(krylov.probe.sum().item<double>());
  EXPECT_LT(bar, 0.5 * std::sqrt(plain.probe.sum().item<double>()));
  EXPECT_LT((krylov.mean - exact(v, windows)).norm().item<double>(), 2 * bar);
}

TEST_F(Methods, StopAtTheErrorAskedFor) {
  for (const StopOf of : {StopOf::diagonal, StopOf::columns, StopOf::trace}) {
    options.probes = 2000;
    options.rule = StopRule{0.1, of, DiagTarget::windows};
    const ResolvedSelection both = layers({"v_proj", "fc1"});
    const DiagonalResult result = run(both, windows);
    const std::vector<UnitSums> sums = unit_sums(model, both, 128);
    for (size_t i = 0; i < 2; ++i) {
      const TensorDiagonal& t = result.tensors[i];
      EXPECT_EQ(t.notes["stop"], "reached");
      EXPECT_LE(judge(*options.rule, t.entries, t.sums, sums[i], 2000).bar, 0.1);
    }
  }
  // The limit holds for all stages together.
  options.probes = 40;
  options.rule = StopRule{1e-4, StopOf::diagonal, DiagTarget::windows};
  EXPECT_LE(run(layers({"q_proj"}), windows).products, 40 * windows.ids.size(0));
}

TEST_F(Methods, ContradictionsAreRefused) {
  const ResolvedSelection q = layers({"q_proj"});
  options.probes = 31;
  EXPECT_THROW(run(q, windows), std::invalid_argument);
  options.probes = 64;
  options.scope = ProbeScope::joint;
  EXPECT_THROW(run(q, windows), std::invalid_argument);
  options.method = DiagMethod::automatic;
  EXPECT_THROW(run(q, windows), std::invalid_argument);
  options.scope = ProbeScope::layer;
  options.rule = StopRule{0.1, StopOf::rows, DiagTarget::windows};
  EXPECT_THROW(run(layers({"self_attn.q_proj.bias"}), windows), std::invalid_argument);  // no matrix
}

// A basis only as large as fits beside the passes, which keep their directions.
TEST_F(Methods, MemoryLimitsTheBasis) {
  const ResolvedSelection q = layers({"q_proj"});
  const std::vector<UnitSums> sums = unit_sums(model, q, 128);
  const Program program = build_program(model.config(), windows.ids.size(1));
  const std::vector<ProbeGroup> groups = probe_groups(q, false, program);
  options.probes = 4000;
  const auto plan = [&] { return plan_groups(program, model, q, groups, sums, windows, options); };
  const GroupPlan full = plan();
  EXPECT_EQ(full.basis, 256);  // n
  options.memory_limit = full.peak() - 1;
  const GroupPlan less = plan();
  EXPECT_EQ(less.basis, 128);
  EXPECT_EQ(less.directions, full.directions);
  EXPECT_LE(less.peak(), options.memory_limit);
  options.probes = 600;
  const GroupPlan small = plan();
  EXPECT_LE(run(q, windows).tensors[0].notes["basis"]["vectors"].get<int64_t>(), small.basis);
}

// Each tensor by its own method; 10 tokens make an exact row cost 5 products, so a budget above 80 is exact.
TEST_F(Methods, AutoIsExactWhereThatIsCheapest) {
  const ResolvedSelection both = layers({"q_proj", "fc1"});
  options.method = DiagMethod::automatic;
  options.probes = 300;
  const DiagonalResult result = run(both, windows);
  EXPECT_EQ(result.tensors[0].notes["choice"]["method"], "exact");
  EXPECT_LE(gap(result.tensors[0].entries.mean, exact(both, windows)), 1e-10);
  options.probes = 64;
  const DiagonalResult few = run(both, windows);
  for (const TensorDiagonal& t : few.tensors) {
    EXPECT_NE(t.notes["choice"]["method"], "exact");
    EXPECT_GT(relative_bars(t.entries, 0, 1).norm, 0);
    EXPECT_EQ(t.notes["choice"]["forecasts"].size(), 3u);
  }
}

// One window, square 1; variance 400 asks for 40,000 probes to 10%: more noise than 8 samples resolve, but a basis
// knows a part of 1.
MethodPilot pilot() {
  MethodPilot p;
  p.hutchinson = {400, 7, 0, 8};
  p.split = Sampled{400, -9, 0, 8};
  p.split_cost = 1.5;
  p.krylov = Sampled{400, 3, 1, 8};
  p.basis = 16, p.block = 8;
  p.exact = 1e6;
  return p;
}
std::string chosen(const MethodPilot& p, int64_t products, std::optional<double> goal) {
  return choose_method(p, products, goal).record["method"].get<std::string>();
}

TEST(MethodChoice, TheCheapestWins) {
  // Nothing helps: probes alone, with a rule and without.
  EXPECT_EQ(chosen(pilot(), 1000, {}), "hutchinson");
  EXPECT_EQ(chosen(pilot(), 100000, 0.1), "hutchinson");
  MethodPilot p = pilot();
  p.split->variance = 200;
  EXPECT_EQ(chosen(p, 1000, {}), "split");
  EXPECT_EQ(chosen(p, 100000, 0.1), "split");
  p.split->variance = 300;  // 25% fewer samples, 50% dearer
  EXPECT_EQ(chosen(p, 1000, {}), "hutchinson");
  p = pilot();
  p.krylov->variance = 40;
  EXPECT_EQ(chosen(p, 1000, {}), "krylov");
  EXPECT_EQ(chosen(p, 100000, 0.1), "krylov");
  EXPECT_EQ(chosen(p, 26, {}), "hutchinson");  // 24 products before the first probe
  p = pilot();
  p.decay = 1;  // only a larger basis than the pilot's pays
  EXPECT_EQ(chosen(p, 1000, {}), "krylov");
  p.exact = 999;
  EXPECT_EQ(chosen(p, 1000, {}), "exact");
  EXPECT_EQ(chosen(p, 998, {}), "krylov");
  EXPECT_EQ(chosen(p, 100000, 0.1), "exact");
  EXPECT_EQ(chosen(p, 100000, 0.9), "krylov");  // a rough answer is cheaper than the exact one
}

// The square that costs are forecast with.
TEST(MethodChoice, WhatThePilotResolves) {
  MethodPilot p = pilot();
  EXPECT_NEAR(choose_method(p, 100000, 0.1).cost, 40000, 1e-6);  // unresolved: the known part's
  p.hutchinson.variance = 4, p.hutchinson.square = 2;            // resolved
  EXPECT_NEAR(choose_method(p, 100000, 0.1).cost, 200, 1e-9);
  p = pilot();
  p.krylov.reset();  // no basis: at least what a square as large as the noise would cost
  EXPECT_NEAR(choose_method(p, 100000, 0.1).cost, 8 / 0.01, 1e-9);
  p.exact = 700;
  EXPECT_EQ(chosen(p, 100000, 0.1), "exact");
}

TEST(MethodChoice, BestBasis) {
  const double never = std::numeric_limits<double>::infinity();
  EXPECT_EQ(best_basis(1, 100, 900, never), 500);   // r + probes = 1000, V ~ 1/r
  EXPECT_EQ(best_basis(0, 100, 900, never), 0);     // no decay: no more vectors
  EXPECT_EQ(best_basis(1, 100, 1e6, 10000), 1000);  // r + 1e6 / r
  EXPECT_NEAR(decay(16, 8, 32, 2), 2, 1e-12);
  EXPECT_EQ(decay(16, 2, 32, 8), 0);
}

}  // namespace
}  // namespace hesper
