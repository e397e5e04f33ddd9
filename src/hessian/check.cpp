#include "hessian/check.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <torch/version.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <stdexcept>

#include "hessian/autograd_engine.h"
#include "hessian/finite_differences.h"
#include "model/build_program.h"
#include "tangent/tangent_pass.h"

namespace hesper {
namespace {

constexpr double kEps64 = std::numeric_limits<double>::epsilon(), kEps32 = std::numeric_limits<float>::epsilon();
constexpr double kHeadroom = 16;  // between the noise of one evaluation and the largest error that it explains
constexpr int64_t kMost = 4;      // directions

double l2(const Tensor& x) { return x.norm().item<double>(); }
std::string precision_name(at::ScalarType dtype) { return dtype == at::kDouble ? "fp64" : "fp32"; }

/// Mean over windows of what a tangent pass gives.
struct Products {
  Tensor gradient;  // (n)
  double loss = 0;
  Tensor hv, gv, rv;        // (K, n); gv, rv only where asked for
  Tensor gram, gram_gauss;  // (K, K); only where asked for
};

class Checker {
 public:
  Checker(const Model& model, const Selection& selection, const Windows& windows, const CheckOptions& options)
      : model_(model),
        options_(options),
        selection_(selection.to(options.device)),
        program_(build_program(model.config(), windows.ids.size(1))),
        tokens_(make_tokens(windows.ids.narrow(0, 0, options.windows), windows.labels.narrow(0, 0, options.windows),
                            options.device)),
        wide_(model.weights.values, at::kDouble, options.device),
        relu_(model.config().activation == Phi::relu),
        differences_(program_, wide_, selection_, tokens_, relu_) {}

  CheckReport run(const Windows& windows) {
    choose_directions();
    exact_ = products(wide_, at::kDouble, v_, true);
    if (!exact_.hv.isfinite().all().item<bool>())
      throw std::runtime_error("check: H V of the model in fp64 is not finite");
    hv_ = l2(exact_.hv);
    measure_noise();
    describe(windows);
    against_autograd();
    within_fp64();
    in_run_precision();
    by_differences();
    return std::move(report_);
  }

 private:
  Products products(const Parameters& parameters, at::ScalarType primal, const Tensor& v, bool all) const;
  void choose_directions();
  void measure_noise();
  void describe(const Windows& windows);
  void against_autograd();
  void within_fp64();
  void in_run_precision();
  void by_differences();
  int64_t autograd_bytes(at::ScalarType dtype) const;

  void row(std::string what, std::string against, double error, double bound, std::string reason) {
    if (!std::isfinite(error)) error = std::numeric_limits<double>::infinity();
    report_.rows.push_back(
        {std::move(what), std::move(against), error, bound, std::move(reason), error <= bound, true});
  }
  void shown(std::string what, std::string against, double error, double bound, std::string reason) {
    report_.rows.push_back({std::move(what), std::move(against), error, bound, std::move(reason), true, false});
  }
  double relative(const Tensor& a, const Tensor& b) const { return l2(a - b) / std::max(l2(b), 1e-300); }
  /// a, b (K, K) of V^T H V, relative to |V| |H V| (rows of V are unit vectors).
  double form_error(const Tensor& a, const Tensor& b) const { return l2(a - b) / std::max(hv_, 1e-300); }

  const Model& model_;
  const CheckOptions& options_;
  const Selection selection_;
  const Program program_;
  const Tokens tokens_;
  const Parameters wide_;  // fp64
  const bool relu_;
  const FiniteDifferences differences_;
  Tensor v_;  // (K, n) fp64, unit rows
  std::vector<std::string> names_;
  Products exact_;
  double hv_ = 0;     // |H V|
  double noise_ = 0;  // of H V in fp64, relative
  std::string noise_reason_;
  std::optional<double> plain_error_;  // of H V by autograd in fp32
  CheckReport report_;
};

Products Checker::products(const Parameters& parameters, at::ScalarType primal, const Tensor& v, bool all) const {
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
  const double h = 1e-10 / std::sqrt(static_cast<double>(selection_.size()));
  const Tensor d = at::full_like(differences_.gradient(), h);
  const Tensor plus = products(differences_.moved(d), at::kDouble, v_, false).hv;
  const Tensor minus = products(differences_.moved(-d), at::kDouble, v_, false).hv;
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
  add("precision of the run", fmt::format("{} tangents, {} primal", precision_name(options_.precision),
                                          precision_name(options_.primal.value_or(at::kDouble))));
  add("versions", fmt::format("hesper {}, LibTorch {}", HESPER_VERSION, TORCH_VERSION));
  add("device", fmt::format("{}, {} threads", options_.device.str(), at::get_num_threads()));
}

/// What autograd keeps for the double backward: numbers per token and width of each block that is at or above the
/// selection, of its attention's T x T matrices and of the head's T x V. The factors are fitted to peaks measured on
/// opt-tiny and stories260K (64 to 512 tokens), of which they give 0.8 to 1.5 times.
int64_t Checker::autograd_bytes(at::ScalarType dtype) const {
  const ModelConfig& c = model_.config();
  const std::vector<char> active = active_values(program_, selection_);
  int64_t attentions = 0;
  for (const auto& op : program_.ops()) attentions += !op->token_local() && active[op->output];
  const double rows = static_cast<double>(tokens_.rows()), t = static_cast<double>(tokens_.length);
  const double block = rows * (30.0 * static_cast<double>(c.width) + 12.0 * static_cast<double>(c.hidden) +
                               9.0 * static_cast<double>(c.heads) * t);
  const double numbers = static_cast<double>(attentions + 1) * block + 6.0 * rows * static_cast<double>(c.vocab);
  return static_cast<int64_t>(numbers * static_cast<double>(c10::elementSize(dtype)));
}

void Checker::against_autograd() {
  const auto fits = [&](at::ScalarType dtype) {
    return options_.memory_limit <= 0 || autograd_bytes(dtype) <= options_.memory_limit;
  };
  const int64_t b = tokens_.sequences;
  const auto run = [&](at::ScalarType dtype) {
    const AutogradEngine engine(program_, wide_, selection_, tokens_, dtype);
    Products out;
    out.loss = engine.losses().mean().item<double>();
    out.gradient = engine.gradient().to(at::kDouble) / b;
    Tensors rows;
    for (int64_t k = 0; k < v_.size(0); ++k) rows.push_back(engine.product(v_[k]).to(at::kDouble) / b);
    out.hv = at::stack(rows);
    return out;
  };
  if (fits(at::kDouble)) {
    const Products oracle = run(at::kDouble);
    const double g = l2(oracle.gradient);
    row("loss", "autograd fp64", std::abs(exact_.loss - oracle.loss) / std::abs(oracle.loss),
        kHeadroom * differences_.loss_noise() / std::abs(oracle.loss),
        fmt::format("{:g} x noise of the loss, measured", kHeadroom));
    row("gradient", "autograd fp64", relative(exact_.gradient, oracle.gradient),
        kHeadroom * differences_.gradient_noise() / std::max(g, 1e-300),
        fmt::format("{:g} x noise of the gradient, measured", kHeadroom));
    row("H V, two-pass fp64", "autograd fp64", relative(exact_.hv, oracle.hv), kHeadroom * noise_, noise_reason_);
  }
  if (!fits(at::kFloat)) {
    report_.notes.push_back(fmt::format(
        "Autograd was left out: its graph needs about {:.1f} GiB in fp32, the limit is {:.1f} GiB. Shorter windows "
        "(--seqlen) bring it back.",
        static_cast<double>(autograd_bytes(at::kFloat)) / (1 << 30),
        static_cast<double>(options_.memory_limit) / (1 << 30)));
    return;
  }
  const Products single = run(at::kFloat);
  plain_error_ = relative(single.hv, exact_.hv);
  if (fits(at::kDouble)) {
    shown("H V, autograd fp32", "two-pass fp64", *plain_error_, 0, "what plain fp32 loses, for comparison");
    return;
  }
  // A ReLU mask that flips in fp32 moves H V by a jump, which no noise measured in fp64 foretells.
  const double bound = relu_ ? 1e-2 : kHeadroom * noise_ * kEps32 / kEps64;
  row("gradient, fp64", "autograd fp32", relative(exact_.gradient, single.gradient), 1e-3,
      "fp32 log-softmax over the vocabulary");
  row("H V, two-pass fp64", "autograd fp32", *plain_error_, std::max(bound, 1e-3),
      relu_ ? "autograd in fp32: flipped ReLU masks" : "autograd in fp32: its rounding and log-softmax");
  report_.notes.push_back(
      fmt::format("Autograd ran in fp32: its graph needs about {:.1f} GiB in fp64, the limit is "
                  "{:.1f} GiB. Shorter windows (--seqlen) bring the sharper comparison back.",
                  static_cast<double>(autograd_bytes(at::kDouble)) / (1 << 30),
                  static_cast<double>(options_.memory_limit) / (1 << 30)));
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
      shown(what, against, error, bound, fmt::format("not to be trusted: {} ReLU inputs change sign", kinks));
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
  if (!relu_) return;
  std::string which;
  for (double step : trusted) which += fmt::format("{}{:.0e}", which.empty() ? "" : ", ", step);
  report_.notes.push_back(
      "The model has ReLU activations: its loss is smooth only between kinks, and a step that carries a ReLU input "
      "across zero measures something else than the Hessian. " +
      (which.empty() ? "No step of this table is small enough to be trusted: try smaller ones."
                     : "Steps in which no ReLU input changes sign, the only ones to be trusted: h = " + which + "."));
}

}  // namespace

bool CheckReport::passed() const {
  return std::all_of(rows.begin(), rows.end(), [](const CheckRow& r) { return r.passed || !r.judged; });
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

std::string to_table(const CheckReport& report) {
  std::string out;
  size_t key = 0, what = 4, against = 7;
  for (const auto& [name, value] : report.header) key = std::max(key, name.size());
  for (const auto& [name, value] : report.header) out += fmt::format("{:<{}}  {}\n", name, key, value);
  for (const CheckRow& r : report.rows) {
    what = std::max(what, r.what.size());
    against = std::max(against, r.against.size());
  }
  const std::string line = std::string(what + against + 34, '-') + "\n";
  out += fmt::format("\n{:<{}}  {:<{}}  {:>8}  {:>8}  {:<6}  {}\n", "what", what, "against", against, "error", "bound",
                     "", "the bound's reason");
  out += line;
  for (const CheckRow& r : report.rows)
    out += fmt::format("{:<{}}  {:<{}}  {:>8.1e}  {:>8}  {:<6}  {}\n", r.what, what, r.against, against, r.error,
                       r.judged ? fmt::format("{:.1e}", r.bound) : "-",
                       !r.judged  ? "-"
                       : r.passed ? "ok"
                                  : "FAILED",
                       r.reason);
  out += line;
  const auto judged = std::count_if(report.rows.begin(), report.rows.end(), [](const CheckRow& r) { return r.judged; });
  const auto failed =
      std::count_if(report.rows.begin(), report.rows.end(), [](const CheckRow& r) { return r.judged && !r.passed; });
  out += fmt::format("{} of {} comparisons hold", judged - failed, judged);
  if (judged < static_cast<int64_t>(report.rows.size()))
    out += fmt::format("; {} rows are shown without a verdict", static_cast<int64_t>(report.rows.size()) - judged);
  out += ".\n";
  for (const std::string& note : report.notes) out += "\n" + note + "\n";
  return out;
}

nlohmann::json to_json(const CheckReport& report) {
  nlohmann::json json = {{"passed", report.passed()}, {"notes", report.notes}, {"rows", nlohmann::json::array()}};
  for (const auto& [name, value] : report.header) json["header"][name] = value;
  const auto number = [](double x) { return std::isfinite(x) ? nlohmann::json(x) : nlohmann::json(nullptr); };
  for (const CheckRow& r : report.rows)
    json["rows"].push_back({{"what", r.what},
                            {"against", r.against},
                            {"error", number(r.error)},
                            {"bound", r.judged ? number(r.bound) : nlohmann::json(nullptr)},
                            {"reason", r.reason},
                            {"passed", r.judged ? nlohmann::json(r.passed) : nlohmann::json(nullptr)}});
  return json;
}

}  // namespace hesper
