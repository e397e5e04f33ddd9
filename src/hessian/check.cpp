#include "hessian/check.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <torch/version.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <stdexcept>

#include "hessian/checker.h"
#include "model/build_program.h"
#include "tangent/tangent_pass.h"

namespace hesper {
namespace {

constexpr int64_t kMost = 4;  // directions

std::string precision_name(at::ScalarType dtype) { return dtype == at::kDouble ? "fp64" : "fp32"; }

}  // namespace

Checker::Checker(const Model& model, const Selection& selection, const Windows& windows, const CheckOptions& options)
    : model_(model),
      options_(options),
      selection_(selection.to(options.device)),
      program_(build_program(model.config(), windows.ids.size(1), options.device)),
      tokens_(make_tokens(windows.ids.narrow(0, 0, options.windows), windows.labels.narrow(0, 0, options.windows),
                          options.device)),
      wide_(model.weights.values, at::kDouble, options.device),
      relu_(model.config().activation == Phi::relu),
      router_(router_margin(program_, wide_, tokens_, at::kDouble)),
      differences_(program_, wide_, selection_, tokens_, relu_) {}

CheckReport Checker::run(const Windows& windows) {
  choose_directions();
  exact_ = products(wide_, at::kDouble, v_, true);
  if (!exact_.hv.isfinite().all().item<bool>())
    throw std::runtime_error("check: H V of the model in fp64 is not finite");
  hv_ = l2(exact_.hv);
  measure_noise();
  describe(windows);
  by_autograd();
  within_fp64();
  in_run_precision();
  by_differences();
  return std::move(report_);
}

Checker::Products Checker::products(const Parameters& parameters, at::ScalarType primal, const Tensor& v,
                                    bool all) const {
  const Tape tape = run_primal(program_, parameters, selection_, tokens_, primal);
  const TangentPass pass(program_, parameters, selection_, tape);
  const Directions directions = Directions::dense(selection_, v, parameters.working());
  const int64_t b = tokens_.sequences;
  const auto mean = [&](Curvature kind) {
    Tensor sum = pass.product(directions, 0, kind);
    for (int64_t s = 1; s < b; ++s) sum += pass.product(directions, s, kind);
    return sum / b;
  };
  Products out;
  out.loss = tape.losses.mean().item<double>();
  out.gradient = tape.gradient.mean(0);
  out.hv = mean(Curvature::hessian);
  if (!all) return out;
  out.gv = mean(Curvature::gauss_newton);
  out.rv = mean(Curvature::residual);
  out.gram = at::zeros({v.size(0), v.size(0)}, v.options());
  out.gram_gauss = at::zeros_like(out.gram);
  for (int64_t s = 0; s < b; ++s) {
    const TangentPass::Forms forms = pass.second_order(directions, s);
    out.gram += (forms.gauss_newton + forms.residual) / b;
    out.gram_gauss += forms.gauss_newton / b;
  }
  return out;
}

void Checker::choose_directions() {
  const int64_t n = selection_.size(), k = n == 1 ? 1 : options_.directions;
  const Tensor& g = differences_.gradient();
  v_ = at::randn({k, n}, at::detail::createCPUGenerator(options_.seed), at::kDouble).to(g.device());
  const int64_t largest = g.abs().argmax().item<int64_t>();
  v_[0].zero_();
  v_[0][largest] = 1;
  names_ = {fmt::format("the unit vector of entry {} (the largest |gradient|)", largest)};
  if (k > 1 && l2(g) > 0) {
    v_[1].copy_(g);
    names_.push_back("the gradient's");
  }
  if (k > static_cast<int64_t>(names_.size()))
    names_.push_back(fmt::format("{} random (normal, seed {})", k - names_.size(), options_.seed));
  v_ /= v_.norm(2, 1, true);
}

/// Second differences of H V over steps of 1e-10 hold nothing but rounding noise, sqrt(6) times that of one product.
void Checker::measure_noise() {
  const Tensor plus = products(differences_.shaken(1e-10), at::kDouble, v_, false).hv;
  const Tensor minus = products(differences_.shaken(-1e-10), at::kDouble, v_, false).hv;
  const double measured = l2(plus - 2 * exact_.hv + minus) / std::sqrt(6.0) / std::max(hv_, 1e-300);
  noise_ = std::max(measured, 8 * kEps64);
  noise_reason_ =
      fmt::format("{:g} x noise of H V in fp64, measured: {:.1e} = {:.0f} eps", kHeadroom, noise_, noise_ / kEps64);
}

void Checker::describe(const Windows& windows) {
  const auto add = [&](std::string key, std::string value) {
    report_.header.emplace_back(std::move(key), std::move(value));
  };
  std::filesystem::path folder = std::filesystem::weakly_canonical(model_.checkpoint.folder());
  if (folder.filename().empty()) folder = folder.parent_path();
  const std::string used = fmt::format("{} of {} tokens", tokens_.sequences, tokens_.length);
  add("model", fmt::format("{} ({}, {} blocks, width {})", folder.filename().string(), model_.config().model_type,
                           model_.config().blocks, model_.config().width));
  add("sha256 of weights", model_.checkpoint.sha256());
  add("data", options_.data_name.empty() ? "token ids" : options_.data_name);
  add("windows", used);
  add("sha256 of ids", ids_sha256(windows.ids.narrow(0, 0, tokens_.sequences)));
  std::string chosen;
  size_t listed = 0;
  for (const SelectedPart& part : selection_.parts()) {
    if (++listed > 3) break;
    const ParameterSpec& spec = model_.weights.specs.at(part.parameter);
    chosen += fmt::format("{}{} ({} of {} entries)", chosen.empty() ? "" : ", ", spec.name, part.size,
                          c10::multiply_integers(spec.shape));
  }
  if (selection_.parts().size() > 3) chosen += fmt::format(" and {} more", selection_.parts().size() - 3);
  add("selection", chosen);
  add("n", fmt::format("{}", selection_.size()));
  std::string directions;
  for (const std::string& name : names_) directions += (directions.empty() ? "" : ", ") + name;
  add("directions V", fmt::format("{}: {}", v_.size(0), directions));
  add("loss", fmt::format("{:.12g}", exact_.loss));
  add("|gradient|", fmt::format("{:.12g}", l2(exact_.gradient)));
  add("|H V|", fmt::format("{:.12g}", hv_));
  if (router_)
    add("router", fmt::format("{:.3g} between the chosen expert's logit and the next at the closest of {} choices: "
                              "derivatives hold while no token changes its expert",
                              router_->smallest, router_->tokens));
  add("precision of the run", fmt::format("{} tangents, {} primal", precision_name(options_.precision),
                                          precision_name(options_.primal.value_or(at::kDouble))));
  add("versions", fmt::format("hesper {}, LibTorch {}", HESPER_VERSION, TORCH_VERSION));
  add("device", fmt::format("{}, {} threads", options_.device.str(), at::get_num_threads()));
}

void Checker::within_fp64() {
  const double bound = kHeadroom * noise_;
  const Tensor form = v_.mm(exact_.hv.t());  // (K, K)
  row("V^T H V, Gram fp64", "two-pass fp64", form_error(exact_.gram, form), bound, noise_reason_ + ", of |V| |H V|");
  row("V^T G V, Gram fp64", "two-pass fp64",
      l2(exact_.gram_gauss - v_.mm(exact_.gv.t())) / std::max({hv_, l2(exact_.gv), 1e-300}), bound,
      noise_reason_ + ", of |V| |H V|");
  row("G V + R V (Gauss-Newton + residual)", "H V, fp64",
      l2(exact_.gv + exact_.rv - exact_.hv) / std::max(l2(exact_.gv) + l2(exact_.rv), 1e-300), bound,
      noise_reason_ + ", of |G V| + |R V|");
  if (v_.size(0) < 2) return;
  row("symmetry: u.(H v)", "v.(H u), fp64", form_error(form, form.t()), bound, noise_reason_ + ", of |u| |H v|");
  const double a = 0.7, c = -1.3;
  const Tensor hw = products(wide_, at::kDouble, (a * v_[0] + c * v_[1]).unsqueeze(0), false).hv[0];
  const Tensor expected = a * exact_.hv[0] + c * exact_.hv[1];
  row("linearity: H (a u + b v)", "a H u + b H v, fp64",
      l2(hw - expected) / std::max(l2(a * exact_.hv[0]) + l2(c * exact_.hv[1]), 1e-300), bound,
      noise_reason_ + ", of |a H u| + |b H v|");
}

void Checker::in_run_precision() {
  const at::ScalarType primal = options_.primal.value_or(at::kDouble);
  if (options_.precision == at::kDouble && primal == at::kDouble) return;
  const Parameters own(model_.weights.values, options_.precision, options_.device);
  const Products mine = products(own, primal, v_, true);
  const std::string tier =
      fmt::format("{} tangents, {} primal", precision_name(options_.precision), precision_name(primal));
  double bound = kHeadroom * noise_ * kEps32 / kEps64;
  std::string reason =
      fmt::format("{:g} x noise of H V in fp64 x eps32/eps64 = {:.0f} eps32", kHeadroom, bound / kEps32);
  if (primal != at::kDouble && plain_error_ && 4 * *plain_error_ > bound) {
    bound = 4 * *plain_error_;
    reason = "4 x the error of autograd fp32: the primal pass rounds as it does";
  }
  row("H V, two-pass, " + tier, "two-pass fp64", relative(mine.hv, exact_.hv), bound, reason);
  row("V^T H V, Gram, " + tier, "two-pass fp64", form_error(mine.gram, v_.mm(exact_.hv.t())), bound,
      reason + ", of |V| |H V|");
  const Tensor form = v_.mm(mine.hv.t());
  if (v_.size(0) > 1)
    row("symmetry: u.(H v), " + tier, "v.(H u)", form_error(form, form.t()), bound, reason + ", of |u| |H v|");
}

void Checker::row(std::string what, std::string against, double error, double bound, std::string reason) {
  if (!std::isfinite(error)) error = std::numeric_limits<double>::infinity();
  report_.rows.push_back({std::move(what), std::move(against), error, bound, std::move(reason), error <= bound, true});
}

void Checker::shown(std::string what, std::string against, double error, double bound, std::string reason) {
  report_.rows.push_back({std::move(what), std::move(against), error, bound, std::move(reason), true, false});
}

CheckReport run_check(const Model& model, const Selection& selection, const Windows& windows,
                      const CheckOptions& options) {
  const at::NoGradGuard no_grad;
  if (selection.size() == 0) throw std::invalid_argument("check: no weight is selected");
  if (options.windows < 1 || options.windows > windows.ids.size(0))
    throw std::invalid_argument(
        fmt::format("check: {} windows asked for, {} are there", options.windows, windows.ids.size(0)));
  if (options.directions < 1 || options.directions > kMost)
    throw std::invalid_argument(
        fmt::format("check: {} directions asked for, 1 to {} are possible", options.directions, kMost));
  if (options.differenced < 0)
    throw std::invalid_argument(fmt::format("check: {} directions by finite differences", options.differenced));
  for (const at::ScalarType p : {options.precision, options.primal.value_or(at::kDouble)})
    if (p != at::kFloat && p != at::kDouble)
      throw std::invalid_argument(fmt::format("check: precision {} is neither fp32 nor fp64", c10::toString(p)));
  return Checker(model, selection, windows, options).run(windows);
}

}  // namespace hesper
