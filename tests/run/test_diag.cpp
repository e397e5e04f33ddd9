// Diagonals of golden models: exact ones against the dense Hessian, estimates against the exact ones.
#include "run/diag.h"

#include <gtest/gtest.h>

#include <cmath>

#include "run/golden_run.h"

namespace hesper {
namespace {

using test::golden_windows;
using test::select;

// fp64 sums of some thousand terms, as in tests/oracle.
constexpr double kTolerance = 1e-12;
double gap(const at::Tensor& a, const at::Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }

DiagOptions in_double() {
  DiagOptions options;
  options.precision = at::kDouble;
  return options;
}

at::Tensor dense_diagonal(const Model& model, const ResolvedSelection& selection, const Windows& windows,
                          Curvature kind) {
  ExactOptions options;
  options.precision = at::kDouble;
  options.curvatures = {kind};
  return compute_exact(model, selection.selection, windows, options).blocks[0].matrix.diagonal().clone();
}

// Rows by their basis (10 tokens, 16 or 24 columns), single entries, vectors; every curvature.
TEST(ExactDiagonal, EqualsTheDenseOne) {
  for (const char* name : {"opt-pre", "llama-gqa"}) {
    const Model model = load_model(test::golden_folder(name));
    const Windows windows = golden_windows(name);
    SelectionRequest some;
    some.layers = {"all"};
    some.blocks = "all";
    some.rows = IndexRange{1, 3};
    SelectionRequest scattered;
    scattered.layers = {"self_attn.v_proj", "*norm.weight"};
    scattered.random = 7;
    SelectionRequest narrow;  // fewer columns than tokens: no basis
    narrow.layers = {"self_attn.k_proj"};
    narrow.cols = IndexRange{2, 7};
    for (const SelectionRequest& request : {some, scattered, narrow}) {
      const ResolvedSelection selection = select(model, request);
      const std::vector<UnitSums> sums = unit_sums(model, selection, 128);
      for (const Curvature kind : {Curvature::hessian, Curvature::gauss_newton, Curvature::residual}) {
        DiagOptions options = in_double();
        options.curvature = kind;
        const DiagonalResult result = compute_exact_diag(model, selection, sums, windows, options);
        const at::Tensor truth = dense_diagonal(model, selection, windows, kind);
        for (size_t i = 0; i < selection.tensors.size(); ++i) {
          const SelectedTensor& t = selection.tensors[i];
          EXPECT_LE((result.tensors[i].entries.mean - truth.slice(0, t.begin, t.end)).norm().item<double>(),
                    kTolerance * truth.norm().item<double>())
              << name << " " << t.name;
          EXPECT_EQ(relative_bars(result.tensors[i].entries).probe.value, 0);
        }
      }
    }
  }
}

class Estimates : public testing::Test {
 protected:
  static SelectionRequest layers(std::vector<std::string> names) {
    SelectionRequest request;
    request.layers = std::move(names);
    return request;
  }
  DiagonalResult estimate(const ResolvedSelection& selection, const DiagOptions& options) const {
    return compute_diag(model, selection, unit_sums(model, selection, 128), windows, options);
  }
  const Model model = load_model(test::golden_folder("opt-pre"));
  const Windows windows = golden_windows("opt-pre");
};

// Same seed: any number of directions at once, any batch, whatever else is selected.
TEST_F(Estimates, AreTheSameHoweverTheyAreCut) {
  const ResolvedSelection q = select(model, layers({"q_proj"})), both = select(model, layers({"fc1", "q_proj"}));
  DiagOptions options = in_double();
  options.probes = 7;
  const DiagonalResult once = estimate(q, options);
  for (const int64_t directions : {1, 3})
    for (const int64_t batch : {2, 3}) {
      options.directions = directions;
      options.batch = batch;
      for (const auto& [result, place] : {std::pair{estimate(q, options), 0}, {estimate(both, options), 0}}) {
        const TensorDiagonal& t = result.tensors[static_cast<size_t>(place)];
        EXPECT_LE(gap(t.entries.mean, once.tensors[0].entries.mean), kTolerance);
        EXPECT_LE(gap(t.entries.probe, once.tensors[0].entries.probe), kTolerance);
        EXPECT_LE(gap(t.entries.total, once.tensors[0].entries.total), kTolerance);
        EXPECT_LE(gap(t.sums.mean, once.tensors[0].sums.mean), kTolerance);
      }
    }
  options.seed = 1;
  EXPECT_GT(gap(estimate(q, options).tensors[0].entries.mean, once.tensors[0].entries.mean), 1e-3);
}

// Errors in units of the probe bar have mean square 1: over 256 entries (coupled, so within 35%) and both scopes.
TEST_F(Estimates, LieWithinTheirProbeBars) {
  const ResolvedSelection selection = select(model, layers({"q_proj", "v_proj", "fc2"}));
  const std::vector<UnitSums> sums = unit_sums(model, selection, 128);
  const DiagonalResult exact = compute_exact_diag(model, selection, sums, windows, in_double());
  for (const ProbeScope scope : {ProbeScope::layer, ProbeScope::joint}) {
    DiagOptions options = in_double();
    options.probes = 64;
    options.scope = scope;
    const DiagonalResult result = estimate(selection, options);
    for (size_t i = 0; i < selection.tensors.size(); ++i) {
      const auto mean_square = [&](const DiagonalBars& bars, const at::Tensor& truth) {
        const at::Tensor error = bars.mean - truth, noisy = bars.probe.gt(0);
        // Weights behind a dead ReLU have zero rows in H: nothing to estimate, and no error.
        EXPECT_EQ(error.masked_select(noisy.logical_not()).abs().sum().item<double>(), 0);
        return (error.square() / bars.probe).masked_select(noisy).mean().item<double>();
      };
      EXPECT_NEAR(mean_square(result.tensors[i].entries, exact.tensors[i].entries.mean), 1, 0.35);
      // Sums have bars of their own, from the sums of the samples.
      EXPECT_NEAR(mean_square(result.tensors[i].sums, exact.tensors[i].sums.mean), 1, 0.6);
    }
  }
}

// Two parts, each with its bars, and their sum with its own.
TEST_F(Estimates, SplitPartsLieWithinTheirBars) {
  const ResolvedSelection selection = select(model, layers({"q_proj", "v_proj"}));
  const std::vector<UnitSums> sums = unit_sums(model, selection, 128);
  DiagOptions options = in_double();
  const DiagonalResult exact = compute_exact_diag(model, selection, sums, windows, options);
  options.method = DiagMethod::split;
  options.probes = 200;
  const DiagonalResult result = estimate(selection, options);
  for (size_t i = 0; i < 2; ++i) {
    const DiagonalBars& d = result.tensors[i].entries;
    const at::Tensor error = d.mean - exact.tensors[i].entries.mean;
    EXPECT_NEAR((error.square() / d.probe).mean().item<double>(), 1, 0.35);
    // The squares of random adjoints: relative error at most sqrt(2 / (m b)) of the largest window, here of all.
    const auto& parts = result.tensors[i].notes.at("parts");
    EXPECT_GT(parts["gauss_newton"]["probe"].get<double>(), 0);
    EXPECT_LT(parts["gauss_newton"]["probe"].get<double>(), std::sqrt(2.0 / 200));
    EXPECT_GT(parts["residual"]["probe"].get<double>(), 0);
  }
  options.directions = 3;
  options.batch = 2;
  EXPECT_LE(gap(estimate(selection, options).tensors[1].entries.mean, result.tensors[1].entries.mean), kTolerance);
  options.curvature = Curvature::residual;
  EXPECT_THROW(estimate(selection, options), std::invalid_argument);
}

TEST_F(Estimates, SumsAreSumsOfEntries) {
  const ResolvedSelection selection = select(model, layers({"q_proj"}));
  const std::vector<UnitSums> sums = unit_sums(model, selection, 5);
  DiagOptions options = in_double();
  options.probes = 3;
  const TensorDiagonal d = compute_diag(model, selection, sums, windows, options).tensors[0];
  const at::Tensor h = d.entries.mean.view({16, 16});
  const auto run = [&](const char* unit, bool saliency) {
    const SumRun& r = *sums[0].find(unit);
    return d.sums.mean.narrow(0, r.begin + (saliency ? sums[0].size() / 2 : 0), r.count);
  };
  EXPECT_LE(gap(run("layer", false), h.sum().view({1})), kTolerance);
  EXPECT_LE(gap(run("row", false), h.sum(1)), kTolerance);
  EXPECT_LE(gap(run("column", false), h.sum(0)), kTolerance);
  EXPECT_LE(gap(run("head", false), h.view({model.config().heads, -1}).sum(1)), kTolerance);
  const at::Tensor groups = run("group", false).view({16, 4});
  EXPECT_LE(gap(groups.select(1, 0), h.slice(1, 0, 5).sum(1)), kTolerance);
  EXPECT_LE(gap(groups.select(1, 3), h.slice(1, 15).sum(1)), kTolerance);
  const at::Tensor w = model.weights.values[static_cast<size_t>(selection.tensors[0].parameter)].to(at::kDouble);
  EXPECT_LE(gap(run("row", true), (h * w.square() / 2).sum(1)), kTolerance);
}

TEST_F(Estimates, StopAtTheErrorAskedFor) {
  const ResolvedSelection selection = select(model, layers({"v_proj", "fc1"}));
  const std::vector<UnitSums> sums = unit_sums(model, selection, 128);
  DiagOptions options = in_double();
  options.probes = 2000;
  for (const StopOf of : {StopOf::diagonal, StopOf::rows, StopOf::columns, StopOf::trace}) {
    options.rule = StopRule{0.3, of, DiagTarget::windows};
    const DiagonalResult result = compute_diag(model, selection, sums, windows, options);
    for (size_t i = 0; i < 2; ++i) {
      const Verdict v = judge(*options.rule, result.tensors[i].entries, result.tensors[i].sums, sums[i], 2000);
      EXPECT_TRUE(v.stop);
      EXPECT_EQ(v.reason, "reached");
      EXPECT_LE(v.bar, 0.3);
      EXPECT_GE(result.tensors[i].entries.samples, least_probes);
      EXPECT_EQ(result.tensors[i].notes["stop"], "reached");
    }
  }
  // The corpus: probes beyond a third of the data bar are waste, and the record says what limits the error.
  at::manual_seed(4);
  const Windows twelve = test::windows_of(at::randint(model.config().vocab, {12, 10}, at::kLong));
  options.rule = StopRule{0.01, StopOf::diagonal, DiagTarget::corpus};
  const DiagonalResult corpus = compute_diag(model, selection, sums, twelve, options);
  const RelativeBars bars = relative_bars(corpus.tensors[0].entries);
  ASSERT_TRUE(bars.data.known());
  EXPECT_LE(bars.probe.value, bars.data.value / 3);
  EXPECT_NE(corpus.tensors[0].notes["stop"].get<std::string>().find("only more windows"), std::string::npos);
  // A limit on probes is kept and said.
  options.rule = StopRule{0.001, StopOf::diagonal, DiagTarget::windows};
  options.probes = 20;
  const DiagonalResult cut = compute_diag(model, selection, sums, windows, options);
  EXPECT_LE(cut.tensors[0].entries.samples, 20);
  EXPECT_NE(cut.tensors[0].notes["stop"].get<std::string>().find("not reached with"), std::string::npos);
}

TEST_F(Estimates, PilotChoosesAScope) {
  const ResolvedSelection selection = select(model, layers({"all"}));
  DiagOptions options = in_double();
  options.probes = 2;
  options.scope = ProbeScope::automatic;
  const DiagonalResult result = estimate(selection, options);
  const auto& pilot = result.notes.at("pilot");
  const bool joint = pilot["joint_to_layer_variance"].get<double>() * pilot["joint_to_layer_cost"].get<double>() < 1;
  EXPECT_EQ(result.notes.at("probe_scope"), joint ? "joint" : "layer");
  // Six layers: joint probes cost less than six products and more than one sixth of them.
  EXPECT_LT(pilot["joint_to_layer_cost"].get<double>(), 1);
  EXPECT_GT(pilot["joint_to_layer_cost"].get<double>(), 1.0 / 6);
  EXPECT_EQ(result.products, windows.ids.size(0) * 2 * (joint ? 1 : 6));
}

TEST_F(Estimates, PlansBeforeAllocating) {
  const ResolvedSelection selection = select(model, layers({"q_proj"}));
  DiagOptions options;
  options.memory_limit = 1 << 10;
  EXPECT_THROW(estimate(selection, options), std::runtime_error);
  options.memory_limit = 0;
  options.probes = 2;
  const DiagonalResult result = estimate(selection, options);
  ASSERT_TRUE(result.precision_error.has_value());
  EXPECT_LE(*result.precision_error, 1e-4);  // fp32 tangents over an fp64 primal pass, some hundred sums
  EXPECT_GT(*result.precision_error, 0);
}

}  // namespace
}  // namespace hesper
