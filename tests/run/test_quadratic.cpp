// Quadratic forms along directions, in fp64: against differences of the loss, the two-pass product and the exact block.
#include "run/quadratic.h"

#include <gtest/gtest.h>

#include "model/build_program.h"
#include "tangent/tangent_pass.h"

namespace hesper::test {
namespace {

Model golden_model(const std::string& name) { return load_model(HESPER_SOURCE_DIR "/tests/golden/" + name); }

Windows random_windows(const Model& model, int64_t b, int64_t seqlen) {
  at::manual_seed(3);
  Windows w;
  w.ids = at::randint(4, model.config().vocab, {b, seqlen}, at::kLong);
  w.labels = w.ids.clone();
  for (int64_t s = 0; s < b; ++s) w.index.push_back(s);
  return w;
}

Weights nudged(const Model& model, double size) {
  at::manual_seed(4);
  Weights out = model.weights;
  for (Tensor& value : out.values) value = value.to(at::kDouble) + size * at::randn(value.sizes(), at::kDouble);
  return out;
}

double error(const Tensor& a, const Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }

const QuadraticOptions kDouble = [] {
  QuadraticOptions options;
  options.precision = at::kDouble;
  return options;
}();

TEST(Quadratic, SecondDifferencesOfTheLoss) {
  for (const char* name : {"opt-gelu", "llama-gqa"}) {
    const Model model = golden_model(name);
    const Windows windows = random_windows(model, 3, 12);
    const Weights other = nudged(model, 1e-2);
    const NamedDirections d = directions_between(model.weights, other, Grouping::layer);
    QuadraticOptions options = kDouble;
    options.steps = {1e-3, -1e-3};
    const QuadraticResult r = compute_quadratic(model, d, windows, options);
    const double up = r.line[0].actual, down = r.line[1].actual, e = 1e-3;
    // Differences are off by e^2 times a fourth derivative (here 1e-6 of the form or less) and 1e-16 / e^2 of the loss.
    EXPECT_NEAR((up - down) / (2 * e), r.gradient.mean.sum().item<double>(),
                1e-6 * std::abs(r.gradient.mean.sum().item<double>()));
    EXPECT_NEAR((up + down) / (2 * e * e), r.hessian.mean.sum().item<double>(),
                1e-6 * std::abs(r.hessian.mean.sum().item<double>()));
  }
}

TEST(Quadratic, TwoPassProduct) {
  const Model model = golden_model("llama-mqa-tied");
  const Windows windows = random_windows(model, 2, 9);
  const NamedDirections d = directions_between(model.weights, nudged(model, 1e-2), Grouping::tensor);
  const QuadraticResult r = compute_quadratic(model, d, windows, kDouble);
  const Program program = build_program(model.config(), 9);
  const Parameters parameters(model.weights.values, at::kDouble, at::kCPU);
  const Selection selection = d.selection();
  const Directions v = d.directions(at::kDouble, at::kCPU);
  Tensor sum = at::zeros({d.count(), d.count()}, at::kDouble);
  for (int64_t s = 0; s < 2; ++s) {
    const Tokens tokens = make_tokens(windows.ids.narrow(0, s, 1), windows.labels.narrow(0, s, 1), at::kCPU);
    const Tape tape = run_primal(program, parameters, selection, tokens, at::kDouble);
    sum += TangentPass(program, parameters, selection, tape).product(v, 0, Curvature::hessian) / 4;
  }
  EXPECT_LT(error(r.hessian.mean, sum), 1e-12);
  EXPECT_LT(error(r.gauss_newton.mean + r.residual.mean, sum), 1e-12);
  EXPECT_LT(error(r.predicted_each.mean, r.gradient.mean + sum.diagonal()), 1e-12);
}

TEST(Quadratic, UnitDirectionsGiveTheExactBlock) {
  const Model model = golden_model("opt-pre");
  const Windows windows = random_windows(model, 2, 10);
  const int p = model.weights.index("model.decoder.layers.0.self_attn.q_proj.weight");
  Selection selection;
  const std::vector<int64_t> entries = {0, 3, 17, 40};
  selection.add(p, model.weights.specs[p].shape, at::tensor(entries));
  ExactOptions exact;
  exact.precision = at::kDouble;
  const ExactResult block = compute_exact(model, selection, windows, exact);
  NamedDirections d;
  for (size_t k = 0; k < entries.size(); ++k) {
    const Tensor unit = at::zeros(model.weights.specs[p].shape, at::kDouble);
    unit.flatten()[entries[k]] = 1;
    d.names.push_back(std::to_string(k)), d.blocks.push_back(0), d.norms.push_back(1), d.weights.push_back(1);
    d.moves.push_back({static_cast<int64_t>(k), p, unit});
  }
  const QuadraticResult r = compute_quadratic(model, d, windows, kDouble);
  EXPECT_LT(error(2 * r.hessian.mean, block.blocks[0].matrix), 1e-12);
  EXPECT_LT(error(r.gradient.mean, block.gradient), 1e-12);
}

TEST(Quadratic, StandardErrorsAreThoseOfTheWindows) {
  const Model model = golden_model("opt-gelu");
  const Windows windows = random_windows(model, 4, 8);
  const NamedDirections d = directions_between(model.weights, nudged(model, 1e-2), Grouping::block);
  QuadraticOptions options = kDouble;
  options.actual_each = true;
  const QuadraticResult all = compute_quadratic(model, d, windows, options);
  Tensors forms, actual;
  for (int64_t s = 0; s < 4; ++s) {
    Windows one = windows;
    one.ids = windows.ids.narrow(0, s, 1), one.labels = windows.labels.narrow(0, s, 1), one.index = {s};
    const QuadraticResult r = compute_quadratic(model, d, one, options);
    EXPECT_FALSE(r.hessian.standard_error.defined());
    forms.push_back(r.hessian.mean), actual.push_back(r.actual_each->mean);
  }
  EXPECT_LT(error(all.hessian.standard_error, at::stack(forms).std(0) / 2), 1e-8);
  EXPECT_LT(error(all.actual_each->standard_error, at::stack(actual).std(0) / 2), 1e-8);
  EXPECT_LT(error(all.actual_each->mean, at::stack(actual).mean(0)), 1e-10);
}

TEST(Quadratic, RefusesWhatIsNoDirection) {
  const Model model = golden_model("opt-pre");
  EXPECT_THROW(directions_between(model.weights, model.weights, Grouping::layer), std::invalid_argument);
  const Model other = golden_model("llama-gqa");
  EXPECT_THROW(directions_between(model.weights, other.weights, Grouping::layer), std::invalid_argument);
}

}  // namespace
}  // namespace hesper::test
