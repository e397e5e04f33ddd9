#include <fmt/format.h>

#include <cmath>

#include "hessian/checker.h"

namespace hesper {

void Checker::by_differences() {
  const int64_t count = std::min<int64_t>(options_.differenced, v_.size(0));
  if (count == 0) return;
  const std::vector<double> steps = options_.steps.empty() ? default_steps(relu_) : options_.steps;
  std::vector<std::vector<Differences>> found;
  for (int64_t k = 0; k < count; ++k) found.push_back(differences_.along(v_[k], steps));
  const double g = std::max(l2(exact_.gradient), 1e-300);
  const double h = std::max(l2(exact_.hv.narrow(0, 0, count)), 1e-300);
  // Estimates of one step, over the directions, against the exact values; `unit` is what errors are relative to.
  const auto compare = [&](const std::string& what, const std::string& by, double step, int64_t kinks,
                           const std::vector<const Estimate*>& estimates, const Tensors& exact, double unit) {
    double error = 0, truncation = 0, rounding = 0;
    for (size_t k = 0; k < estimates.size(); ++k) {
      error += std::pow(l2(estimates[k]->value - exact[k]), 2);
      truncation += std::pow(estimates[k]->truncation, 2);
      rounding += std::pow(estimates[k]->rounding, 2);
    }
    error = std::sqrt(error) / unit, truncation = std::sqrt(truncation) / unit, rounding = std::sqrt(rounding) / unit;
    const double bound = 3 * (truncation + rounding);
    const std::string against = fmt::format("{}, h = {:.0e}", by, step);
    if (kinks > 0)
      shown(
          what, against, error, bound,
          fmt::format("not to be trusted: {} {}", kinks, relu_ ? "ReLU inputs change sign" : "tokens change experts"));
    else if (bound >= 1)
      shown(what, against, error, bound, "says nothing: rounding over h is larger than the value");
    else
      row(what, against, error, bound, fmt::format("3 x (truncation {:.0e} + rounding {:.0e})", truncation, rounding));
  };
  std::vector<double> trusted;
  for (size_t i = 0; i < steps.size(); ++i) {
    int64_t kinks = 0;
    for (const auto& along : found) kinks += along[i].kinks;
    if (kinks == 0) trusted.push_back(steps[i]);
  }
  const auto each = [&](const std::string& what, const std::string& by, Estimate Differences::*field,
                        const auto& exact_of, double unit) {
    for (size_t i = 0; i < steps.size(); ++i) {
      int64_t kinks = 0;
      std::vector<const Estimate*> estimates;
      Tensors exact;
      for (int64_t k = 0; k < count; ++k) {
        kinks += found[k][i].kinks;
        estimates.push_back(&(found[k][i].*field));
        exact.push_back(exact_of(k));
      }
      compare(what, by, steps[i], kinks, estimates, exact, unit);
    }
  };
  const auto column = [&](int64_t k) { return exact_.hv[k]; };
  const auto curvature = [&](int64_t k) { return v_[k].dot(exact_.hv[k]); };
  const auto slope = [&](int64_t k) { return v_[k].dot(exact_.gradient); };
  each("H v", "central differences of the gradient", &Differences::column_central, column, h);
  each("H v", "forward differences of the gradient", &Differences::column_forward, column, h);
  each("v.H v", "central second differences of the loss", &Differences::curvature_central, curvature, h);
  each("v.H v", "forward second differences of the loss", &Differences::curvature_forward, curvature, h);
  each("g.v", "central differences of the loss", &Differences::slope_central, slope, g);
  each("g.v", "forward differences of the loss", &Differences::slope_forward, slope, g);
  if (count > 1)
    for (const MixedDifference& d : differences_.mixed(v_[0], v_[1], steps))
      compare("u.H v", "mixed differences of the loss", d.step, d.kinks, {&d.value}, {v_[0].dot(exact_.hv[1])},
              std::max(l2(exact_.hv[1]), 1e-300));
  report_.notes.push_back(fmt::format(
      "Finite differences move the selected weights by h along {} of the directions, unit vectors; errors of H v, v.H "
      "v "
      "and u.H v are relative to |H v|, of g.v to |gradient|. Rounding noise measured: loss {:.0e}, gradient {:.0e}.",
      count, differences_.loss_noise(), differences_.gradient_noise()));
  if (!relu_ && !router_) return;
  std::string which;
  for (double step : trusted) which += fmt::format("{}{:.0e}", which.empty() ? "" : ", ", step);
  report_.notes.push_back(
      (relu_ ? std::string("The model has ReLU activations: its loss is smooth only between kinks, and a step that "
                           "carries a ReLU input across zero measures something else than the Hessian. ")
             : std::string("The model routes tokens to experts: its loss is smooth only while every token keeps its "
                           "expert, and a step that changes one measures something else than the Hessian. ")) +
      (which.empty() ? "No step of this table is small enough to be trusted: try smaller ones."
                     : fmt::format("Steps in which no {}, the only ones to be trusted: h = {}.",
                                   relu_ ? "ReLU input changes sign" : "token changes its expert", which)));
}

}  // namespace hesper
