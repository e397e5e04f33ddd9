#include "hessian/finite_differences.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "ops/experts.h"

namespace hesper {
namespace {

constexpr double kEps = std::numeric_limits<double>::epsilon();

double l2(const Tensor& x) { return x.norm().item<double>(); }
Tensor scalar(double x) { return at::scalar_tensor(x, at::kDouble); }

/// Truncation of a second-order formula at steps[i]: e ~ c h^2, so that the difference to the next larger step, where
/// the error is (h'/h)^2 times as large, or to the next smaller one, where it is less, tells c. Untrusted neighbours
/// (kinks) are left out while there is another.
double richardson(const Tensors& values, const std::vector<double>& steps, const std::vector<bool>& trusted, size_t i) {
  std::vector<double> found, doubtful;
  const auto list = [&](size_t j) -> std::vector<double>& { return trusted[j] ? found : doubtful; };
  if (i > 0) {
    const double ratio = std::pow(steps[i] / steps[i - 1], 2);
    list(i - 1).push_back(l2(values[i - 1] - values[i]) * ratio / (1 - ratio));
  }
  if (i + 1 < values.size()) {
    const double ratio = std::pow(steps[i + 1] / steps[i], 2);
    list(i + 1).push_back(l2(values[i] - values[i + 1]) / (1 - ratio));
  }
  const std::vector<double>& use = found.empty() ? doubtful : found;
  return use.empty() ? std::numeric_limits<double>::infinity() : *std::min_element(use.begin(), use.end());
}

}  // namespace

std::vector<double> default_steps(bool relu) {
  std::vector<double> steps = {1e-3, 1e-4, 1e-5, 1e-6, 1e-7};
  if (relu) steps.insert(steps.end(), {1e-8, 1e-9});
  return steps;
}

FiniteDifferences::FiniteDifferences(const Program& program, const Parameters& parameters, const Selection& selection,
                                     const Tokens& tokens, bool relu)
    : program_(program), parameters_(parameters), selection_(selection), tokens_(tokens), relu_(relu) {
  const at::NoGradGuard no_grad;
  pieces_ = pieces(parameters);
  origin_ = evaluate(parameters);
  // f(h) - 2 f(0) + f(-h) = h^2 f'' + noise, noise of standard deviation sqrt(6) e. The largest of a few: one alone may
  // vanish by chance where there is a single weight.
  loss_noise_ = 4 * kEps * std::abs(origin_.loss);
  gradient_noise_ = 4 * kEps * l2(origin_.gradient);
  for (const double h : {1e-10, 2e-10, 3e-10}) {
    const Point plus = evaluate(shaken(h)), minus = evaluate(shaken(-h));
    loss_noise_ = std::max(loss_noise_, std::abs(plus.loss - 2 * origin_.loss + minus.loss) / std::sqrt(6.0));
    gradient_noise_ =
        std::max(gradient_noise_, l2(plus.gradient - 2 * origin_.gradient + minus.gradient) / std::sqrt(6.0));
  }
}

Parameters FiniteDifferences::moved(const Tensor& d) const {
  std::vector<std::pair<int, Tensor>> replaced;
  for (const SelectedPart& part : selection_.parts()) {
    const Tensor w = parameters_.get(part.parameter, at::kDouble);
    replaced.emplace_back(part.parameter,
                          w.flatten().index_add(0, part.entries(), d.narrow(0, part.begin, part.size)).view_as(w));
  }
  return parameters_.with(replaced);
}

Parameters FiniteDifferences::shaken(double h) const {
  const double n = static_cast<double>(selection_.size());
  const Tensor d = at::full({selection_.size()}, h / std::sqrt(n), origin_.gradient.options());
  std::vector<std::pair<int, Tensor>> scaled;
  for (int p = 0; p < parameters_.count(); ++p)
    if (parameters_.stored(p).dim() == 1 && !selection_.has(p))
      scaled.emplace_back(p, parameters_.get(p, at::kDouble) * (1 + h));
  return moved(d).with(scaled);
}

FiniteDifferences::Point FiniteDifferences::evaluate(const Parameters& parameters) const {
  const Tape tape = run_primal(program_, parameters, selection_, tokens_, at::kDouble);
  return {tape.losses.mean().item<double>(), tape.gradient.mean(0)};
}

double FiniteDifferences::loss_at(const Tensor& d) const {
  return run_forward(program_, moved(d), tokens_, at::kDouble).mean().item<double>();
}

Tensors FiniteDifferences::pieces(const Parameters& parameters) const {
  const auto routes = [](const auto& op) { return dynamic_cast<const ExpertInput*>(op.get()) != nullptr; };
  if (!relu_ && std::none_of(program_.ops().begin(), program_.ops().end(), routes)) return {};
  const Selection nothing;
  const Primal p{tokens_, parameters, nothing, at::kDouble, false};
  Tensors values(program_.values()), pieces;
  std::vector<int> last(program_.values(), -1);
  const auto& ops = program_.ops();
  for (size_t i = 0; i < ops.size(); ++i)
    for (int x : ops[i]->inputs) last[x] = static_cast<int>(i);
  for (size_t i = 0; i < ops.size(); ++i) {
    const Op& op = *ops[i];
    Tensors x;
    for (int input : op.inputs) x.push_back(values[input]);
    if (relu_ && (dynamic_cast<const Activation*>(&op) || dynamic_cast<const GatedActivation*>(&op)))
      pieces.push_back(x[0].gt(0));
    if (const auto* expert = dynamic_cast<const ExpertInput*>(&op)) pieces.push_back(expert->chosen(x[1]));
    Kept nothing_kept;
    values[op.output] = op.forward(p, x, nothing_kept);
    for (int input : op.inputs)
      if (last[input] == static_cast<int>(i)) values[input] = Tensor();
  }
  return pieces;
}

int64_t FiniteDifferences::kinks(const Tensor& d) const {
  if (pieces_.empty()) return 0;
  const at::NoGradGuard no_grad;
  int64_t count = 0;
  const Tensors there = pieces(moved(d));
  for (size_t i = 0; i < there.size(); ++i) count += there[i].ne(pieces_[i]).sum().item<int64_t>();
  return count;
}

void FiniteDifferences::check(const Tensor& v, const std::vector<double>& steps) const {
  if (v.dim() != 1 || v.size(0) != selection_.size())
    throw std::invalid_argument(fmt::format("[finite differences] a direction of {} entries over {} selected weights",
                                            v.numel(), selection_.size()));
  for (size_t i = 0; i < steps.size(); ++i)
    if (!(steps[i] > 0) || (i > 0 && steps[i] >= steps[i - 1]))
      throw std::invalid_argument(
          fmt::format("[finite differences] step {} is {}: steps must be positive and descend", i, steps[i]));
}

std::vector<Differences> FiniteDifferences::along(const Tensor& v, const std::vector<double>& steps) const {
  check(v, steps);
  const at::NoGradGuard no_grad;
  const double e_l = loss_noise_, e_g = gradient_noise_, l = origin_.loss;
  const Tensor& g = origin_.gradient;
  std::vector<Differences> out;
  Tensors slope, curvature, column;
  std::vector<bool> trusted;
  for (double h : steps) {
    const Point plus = evaluate(moved(h * v)), minus = evaluate(moved(-h * v));
    Differences d;
    d.step = h;
    // Fewer inputs change sign over a smaller step.
    if (out.empty() || out.back().kinks > 0) d.kinks = kinks(-h * v) + kinks(2 * h * v);
    d.slope_forward = {scalar((plus.loss - l) / h), 0, 2 * e_l / h};
    d.slope_central = {scalar((plus.loss - minus.loss) / (2 * h)), 0, e_l / h};
    const double twice = loss_at(2 * h * v);
    d.curvature_forward = {scalar((twice - 2 * plus.loss + l) / (h * h)), 0, 4 * e_l / (h * h)};
    d.curvature_central = {scalar((plus.loss - 2 * l + minus.loss) / (h * h)), 0, 4 * e_l / (h * h)};
    d.column_forward = {(plus.gradient - g) / h, 0, 2 * e_g / h};
    d.column_central = {(plus.gradient - minus.gradient) / (2 * h), 0, e_g / h};
    slope.push_back(d.slope_central.value);
    curvature.push_back(d.curvature_central.value);
    column.push_back(d.column_central.value);
    trusted.push_back(d.kinks == 0);
    out.push_back(std::move(d));
  }
  for (size_t i = 0; i < out.size(); ++i) {
    const auto fill = [&](Estimate& forward, Estimate& central, const Tensors& values) {
      central.truncation = richardson(values, steps, trusted, i);
      forward.truncation = l2(forward.value - central.value) + central.truncation;
    };
    fill(out[i].slope_forward, out[i].slope_central, slope);
    fill(out[i].curvature_forward, out[i].curvature_central, curvature);
    fill(out[i].column_forward, out[i].column_central, column);
  }
  return out;
}

std::vector<MixedDifference> FiniteDifferences::mixed(const Tensor& u, const Tensor& v,
                                                      const std::vector<double>& steps) const {
  check(u, steps);
  check(v, steps);
  const at::NoGradGuard no_grad;
  std::vector<MixedDifference> out;
  Tensors values;
  std::vector<bool> trusted;
  for (double h : steps) {
    const Tensor p = h * (u + v), m = h * (u - v);
    MixedDifference d{h, 0, {}};
    if (out.empty() || out.back().kinks > 0) d.kinks = kinks(p) + kinks(m) + kinks(-m) + kinks(-p);
    const double sum = loss_at(p) - loss_at(m) - loss_at(-m) + loss_at(-p);
    d.value = {scalar(sum / (4 * h * h)), 0, loss_noise_ / (h * h)};
    values.push_back(d.value.value);
    trusted.push_back(d.kinks == 0);
    out.push_back(std::move(d));
  }
  for (size_t i = 0; i < out.size(); ++i) out[i].value.truncation = richardson(values, steps, trusted, i);
  return out;
}

}  // namespace hesper
