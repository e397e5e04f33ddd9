// Differences against closed forms and against the engine, and their own error estimates against their errors.
#include "hessian/finite_differences.h"

#include <gtest/gtest.h>

#include "hessian/autograd_engine.h"
#include "tangent/toy_models.h"

namespace hesper::test {
namespace {

double l2(const Tensor& x) { return x.norm().item<double>(); }

struct Case {
  Toy toy;
  Selection selection;
  Parameters parameters;
  Tensor h, g;  // autograd, mean over windows
  Case(const ToyShape& shape, int64_t entries)
      : toy(make_toy(shape)), selection(toy.select_everywhere(entries)), parameters(toy.parameters()) {
    const AutogradEngine engine(*toy.program, parameters, selection, toy.tokens, at::kDouble);
    h = engine.columns(0, selection.size()) / double(toy.tokens.sequences);
    g = engine.gradient() / double(toy.tokens.sequences);
  }
  FiniteDifferences differences(bool relu) const { return {*toy.program, parameters, selection, toy.tokens, relu}; }
  Tensor direction() const {
    const Tensor v = at::randn({selection.size()}, at::kDouble);
    return v / v.norm();
  }
};

// An estimate is right when it misses the exact value by no more than three times what it expects of itself.
void expect_honest(const Estimate& e, const Tensor& exact, const std::string& what) {
  EXPECT_LE(l2(e.value - exact), 3 * (e.truncation + e.rounding)) << what;
}

TEST(FiniteDifferences, SmoothModelAtEveryStep) {
  const Case c({.llama = true, .kv_heads = 2, .phi = Phi::silu}, 3);
  const FiniteDifferences f = c.differences(false);
  EXPECT_NEAR(l2(f.gradient() - c.g) / l2(c.g), 0, 1e-12);
  const Tensor v = c.direction(), u = c.direction();
  const Tensor hv = c.h.mv(v), vhv = v.dot(hv), uhv = u.dot(hv), slope = c.g.dot(v);
  const auto found = f.along(v, default_steps(false));
  for (const Differences& d : found) {
    const std::string at_step = "h = " + std::to_string(d.step);
    EXPECT_EQ(d.kinks, 0);
    expect_honest(d.column_central, hv, "column, central, " + at_step);
    expect_honest(d.column_forward, hv, "column, forward, " + at_step);
    expect_honest(d.curvature_central, vhv, "curvature, central, " + at_step);
    expect_honest(d.curvature_forward, vhv, "curvature, forward, " + at_step);
    expect_honest(d.slope_central, slope, "slope, central, " + at_step);
    expect_honest(d.slope_forward, slope, "slope, forward, " + at_step);
  }
  for (const MixedDifference& d : f.mixed(u, v, default_steps(false))) expect_honest(d.value, uhv, "mixed");
  // The estimates are not just large: at its best step each formula is as good as theory says. Central differences of
  // g: eps^(2/3) of values of order one, so 1e-9 with room; of l twice: eps^(1/2), 1e-6; forward of g: eps^(1/2).
  EXPECT_LT(l2(found[2].column_central.value - hv), 1e-8 * l2(hv));
  EXPECT_LT(found[2].column_central.truncation + found[2].column_central.rounding, 1e-7 * l2(hv));
  EXPECT_LT(l2(found[4].column_forward.value - hv), 1e-5 * l2(hv));
  EXPECT_LT(l2(found[1].curvature_central.value - vhv), 1e-5 * l2(hv));
  EXPECT_LT(l2(found[2].slope_central.value - slope), 1e-8 * l2(c.g));
}

TEST(FiniteDifferences, SingleEntriesByMixedDifferences) {
  const Case c({.phi = Phi::gelu}, 2);
  const FiniteDifferences f = c.differences(false);
  const Tensor e = at::eye(c.selection.size(), at::kDouble);
  for (const auto& [i, j] : {std::pair<int64_t, int64_t>{0, 0}, {3, 3}, {1, 8}, {5, 2}})
    expect_honest(f.mixed(e[i], e[j], {1e-3, 1e-4})[1].value, c.h[i][j], "entry");
}

// Truncation falls as h^2 (central) and h (forward) while rounding is far below it.
TEST(FiniteDifferences, OrdersOfConvergence) {
  const Case c({.phi = Phi::gelu_tanh}, 2);
  const FiniteDifferences f = c.differences(false);
  const Tensor v = c.direction(), hv = c.h.mv(v);
  const auto found = f.along(v, {4e-3, 2e-3});
  const double central = l2(found[0].column_central.value - hv) / l2(found[1].column_central.value - hv);
  const double forward = l2(found[0].column_forward.value - hv) / l2(found[1].column_forward.value - hv);
  EXPECT_NEAR(central, 4, 0.4);
  EXPECT_NEAR(forward, 2, 0.2);
}

TEST(FiniteDifferences, ReluKinksAreCounted) {
  const Case c({.hidden = 400, .tokens = 40, .phi = Phi::relu}, 3);
  const FiniteDifferences f = c.differences(true);
  const Tensor v = c.direction(), hv = c.h.mv(v);
  const auto found = f.along(v, {1e-1, 1e-2, 1e-7, 1e-8});
  // 32,000 inputs of order one: a step of 0.1 carries some of them across zero, one of 1e-7 none.
  EXPECT_GT(found[0].kinks, 0);
  EXPECT_GT(found[0].kinks, found[1].kinks);
  ASSERT_EQ(found[2].kinks, 0);
  EXPECT_EQ(found[3].kinks, 0);
  expect_honest(found[2].column_central, hv, "column without a kink");
  EXPECT_LT(l2(found[2].column_central.value - hv), 1e-6 * l2(hv));
  // A step with kinks measures something else, by far more than rounding explains.
  EXPECT_GT(l2(found[0].column_central.value - hv), 1e-3 * l2(hv));
  EXPECT_GT(l2(found[0].column_central.value - hv), 1e6 * found[0].column_central.rounding);
  EXPECT_EQ(f.kinks(at::zeros_like(v)), 0);
}

TEST(FiniteDifferences, RefusesBadSteps) {
  const Case c({.phi = Phi::gelu}, 1);
  const FiniteDifferences f = c.differences(false);
  const Tensor v = c.direction();
  EXPECT_THROW(f.along(v, {1e-4, 1e-3}), std::invalid_argument);
  EXPECT_THROW(f.along(v, {0.0}), std::invalid_argument);
  EXPECT_THROW(f.along(v.narrow(0, 0, 2), {1e-4}), std::invalid_argument);
}

}  // namespace
}  // namespace hesper::test
