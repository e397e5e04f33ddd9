#include "run/quadratic.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <map>

#include "model/build_program.h"
#include "run/clock.h"
#include "run/ledger.h"
#include "run/memory.h"
#include "run/primal_batches.h"
#include "run/rank_proxies.h"
#include "tangent/tangent_pass.h"

namespace hesper {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
// Tokens of a measured pass, at least: the products are tall, and where weights are raised from a narrower type that is
// a few percent of the work.
constexpr int64_t kMeasuredTokens = 1024;

/// Sums of one quantity over windows, fp64, in the order of the ledger.
struct Spread {
  Tensor sum, squares;
  int64_t windows = 0;
  void add(const Tensor& x) {
    if (windows++ == 0) sum = at::zeros_like(x), squares = at::zeros_like(x);
    sum.add_(x);
    squares.addcmul_(x, x);
  }
  WithError finish() const {
    const auto b = static_cast<double>(windows);
    WithError out{sum / b, {}};
    if (windows > 1) out.standard_error = (squares / b - out.mean.square()).clamp_min_(0).div_(b - 1).sqrt_();
    return out;
  }
};

/// Mean of x (b) and its standard error, NaN for one window.
std::pair<double, double> mean_of(const Tensor& x) {
  const auto b = static_cast<double>(x.numel());
  return {x.mean().item<double>(), b > 1 ? x.std().item<double>() / std::sqrt(b) : kUnknown};
}

/// x (b, ...): the same as Spread of its rows.
WithError over_windows(const Tensor& x) {
  Spread spread;
  for (int64_t s = 0; s < x.size(0); ++s) spread.add(x[s]);
  return spread.finish();
}

/// Windows of a measured pass.
int64_t measured_batch(const Windows& windows, const QuadraticOptions& options) {
  return std::min(windows.ids.size(0), std::max(options.batch, kMeasuredTokens / windows.ids.size(1)));
}

class Run {
 public:
  Run(const Model& model, const NamedDirections& named, const Windows& windows, const QuadraticOptions& options,
      const OnProgress& on_progress, const ShouldStop& stop)
      : model_(model),
        named_(named),
        windows_(windows),
        options_(options),
        on_progress_(on_progress),
        stop_(stop),
        program_(build_program(model.config(), windows.ids.size(1), options.device)) {
    const int64_t k = named.count(), steps = static_cast<int64_t>(options.steps.size());
    const int64_t losses = steps + (options.actual_each ? k : 0);
    progress_.units = b() * (k + (options.rank ? k : 0) + losses + (losses > 0 ? 1 : 0));
  }

  QuadraticResult result() {
    const PeakMemory memory(options_.device);
    forms();
    const Clock::time_point actual = Clock::now();
    // As stored, each raised to the precision of the pass while it is used.
    const Parameters base(model_.weights.values, model_.weights.values[0].scalar_type(), options_.device);
    if (!options_.steps.empty() || options_.actual_each) measure_base(base);
    line(base);
    if (options_.actual_each) each(base);
    if (options_.rank) rank();
    out_.actual_seconds = seconds_since(actual);
    out_.seconds = seconds_since(begin_);
    out_.mean_loss = out_.losses.mean().item<double>();
    out_.peak_memory = memory.peak();
    return std::move(out_);
  }

 private:
  int64_t b() const { return windows_.ids.size(0); }
  std::vector<Unit> measured() const { return make_units(b(), measured_batch(windows_, options_), 1, 1); }
  Tokens tokens(const Unit& unit) const {
    return make_tokens(windows_.ids.narrow(0, unit.first_window, unit.windows),
                       windows_.labels.narrow(0, unit.first_window, unit.windows), options_.device);
  }
  /// `directions` of so many windows, by forms or by a measured loss.
  void done(int64_t directions, int64_t windows, bool forms) {
    progress_.done += directions * windows;
    if (forms) progress_.products += static_cast<double>(directions * windows);
    progress_.seconds = seconds_since(begin_);
    if (on_progress_) on_progress_(progress_);
    if (stop_ && stop_()) throw Interrupted();
  }

  /// g.d, d'Gd/2 and d'Rd/2 of every window.
  void forms() {
    const Selection selection = named_.selection();
    const Directions v = named_.directions(options_.precision, options_.device);
    const Parameters parameters(model_.weights.values, options_.precision, options_.device);
    PrimalBatches primal(program_, parameters, selection, windows_, options_.batch, *options_.primal, &v);
    Spread gradient, gauss_newton, residual, hessian;
    first_order_ = at::zeros({b()}, at::kDouble), second_order_ = at::zeros({b()}, at::kDouble);
    predicted_ = at::zeros({b(), named_.count()}, at::kDouble);
    for (int64_t s = 0; s < b(); ++s) {
      const Tape& tape = primal.tape(s);
      const TangentPass::Forms f = TangentPass(program_, parameters, selection, tape).second_order(v, primal.place(s));
      const Tensor g = tape.gradient[primal.place(s)].cpu(), G = f.gauss_newton.cpu() / 2, R = f.residual.cpu() / 2;
      const Tensor H = G + R;
      require_finite(H, windows_.index[s]);
      require_finite(g, windows_.index[s]);
      gradient.add(g), gauss_newton.add(G), residual.add(R), hessian.add(H);
      predicted_[s].copy_(g + H.diagonal());
      first_order_[s] = g.sum();
      second_order_[s] = H.sum();
      done(named_.count(), 1, true);
      if (!options_.rank) continue;
      const Clock::time_point proxies = Clock::now();
      proxies_.push_back(
          window_proxies(program_, parameters, selection, tape, primal.place(s), windows_.index[s], named_));
      require_finite(proxies_.back().diagonal, windows_.index[s]);
      out_.proxy_seconds += seconds_since(proxies);
      done(named_.count(), 1, true);
    }
    out_.losses = primal.losses();
    out_.loss = primal.loss();
    out_.primal_seconds = primal.seconds();
    out_.gradient = gradient.finish(), out_.gauss_newton = gauss_newton.finish(), out_.residual = residual.finish();
    out_.hessian = hessian.finish(), out_.predicted_each = over_windows(predicted_);
    out_.line_first = over_windows(first_order_), out_.line_second = over_windows(second_order_);
  }

  /// w + e times the moves that `wanted` picks, in the wider type of the two.
  template <class Wanted>
  Parameters moved(const Parameters& base, double e, Wanted wanted) const {
    std::map<int, Tensor> values;
    for (const Move& move : named_.moves) {
      if (!wanted(move)) continue;
      Tensor& value = values[move.parameter];
      if (!value.defined()) value = base.stored(move.parameter);
      value = value.to(c10::promoteTypes(value.scalar_type(), move.values.scalar_type())).add(move.values, e);
    }
    return base.with({values.begin(), values.end()});
  }

  void measure(const Unit& unit, const Tensor& losses, Tensor out) {
    for (int64_t s = 0; s < unit.windows; ++s) require_finite(losses[s], windows_.index[unit.first_window + s]);
    out.narrow(0, unit.first_window, unit.windows).copy_(losses);
    done(1, unit.windows, false);
  }

  /// Losses at w in the precision of those that are held against them: what rounding does to both cancels.
  void measure_base(const Parameters& base) {
    base_losses_ = at::zeros({b()}, at::kDouble);
    for (const Unit& unit : measured())
      measure(unit, run_forward(program_, base, tokens(unit), options_.precision), base_losses_);
  }

  void line(const Parameters& base) {
    for (const double e : options_.steps) {
      const Parameters parameters = moved(base, e, [](const Move&) { return true; });
      Tensor change = at::zeros({b()}, at::kDouble);
      for (const Unit& unit : measured())
        measure(unit, run_forward(program_, parameters, tokens(unit), options_.precision), change);
      change -= base_losses_;
      const Tensor predicted = e * first_order_ + e * e * second_order_;
      LineStep step{.e = e};
      std::tie(step.predicted, step.predicted_error) = mean_of(predicted);
      std::tie(step.actual, step.actual_error) = mean_of(change);
      step.difference_error = mean_of(change - predicted).second;
      out_.line.push_back(step);
    }
  }

  void each(const Parameters& base) {
    std::vector<std::vector<int>> changed(static_cast<size_t>(named_.count()));
    for (const Move& move : named_.moves) changed[static_cast<size_t>(move.direction)].push_back(move.parameter);
    actual_ = at::zeros({b(), named_.count()}, at::kDouble);
    for (const Unit& unit : measured())
      run_variants(
          program_, base, changed, tokens(unit), options_.precision,
          [&](int64_t k) { return moved(base, 1, [k](const Move& move) { return move.direction == k; }); },
          [&](int64_t k, const Tensor& losses) { measure(unit, losses, actual_.select(1, k)); });
    actual_ -= base_losses_.unsqueeze(1);
    out_.actual_each = over_windows(actual_);
  }

  void rank() {
    const auto column = [&](const char* name, Tensor WindowProxies::*part) {
      Tensors rows;
      for (const WindowProxies& window : proxies_) rows.push_back(window.*part);
      out_.ranking.push_back({name, at::stack(rows)});
    };
    out_.ranking = {{"actual", actual_}, {"predicted", predicted_}};
    column("diagonal", &WindowProxies::diagonal), column("gauss_newton", &WindowProxies::gauss_newton);
    column("fisher", &WindowProxies::fisher), column("output_error", &WindowProxies::output_error);
    out_.ranking.push_back({"weight_error", at::tensor(named_.norms, at::kDouble).square().unsqueeze(0)});
  }

  const Model& model_;
  const NamedDirections& named_;
  const Windows& windows_;
  const QuadraticOptions& options_;
  const OnProgress& on_progress_;
  const ShouldStop& stop_;
  const Program program_;
  const Clock::time_point begin_ = Clock::now();
  Progress progress_;
  Tensor first_order_, second_order_;  // (b) of all directions together
  Tensor base_losses_;                 // (b) at w, as the actual losses are measured
  Tensor predicted_, actual_;          // (b, K) of each alone
  std::vector<WindowProxies> proxies_;
  QuadraticResult out_;
};

void require_rankable(const NamedDirections& directions, const QuadraticOptions& options) {
  if (options.rank && directions.count() < 2)
    throw std::invalid_argument(fmt::format(
        "a ranking needs at least 2 directions, {} is here (--group layer cuts finer)", directions.count()));
  if (options.rank && !options.actual_each)
    throw std::invalid_argument("a ranking needs the actual cost of each direction (--actual each)");
}

}  // namespace

Plan plan_quadratic(const Model& model, const NamedDirections& directions, const Windows& windows,
                    const QuadraticOptions& options) {
  require_rankable(directions, options);
  const Program program = build_program(model.config(), windows.ids.size(1), options.device);
  const Selection selection = directions.selection();
  PlanRequest r = plan_request(program, model, selection, windows, options);
  r.pass = Pass::gram;
  r.matrices = 8;  // sums and squares of G, R and H, and what a window adds
  r.columns = r.carried = directions.count();
  // The user's own on the CPU, and a copy where the passes work in another type or on another device, or where several
  // directions move one parameter and are laid side by side; for a ranking the same once more with signs.
  const at::ScalarType own = directions.moves[0].values.scalar_type();
  const int64_t stored = directions.bytes(own), working = directions.bytes(options.precision);
  const bool cpu = options.device.is_cpu(), shared = directions.moves.size() > selection.parts().size();
  r.beside = (cpu ? stored : 0) + (cpu && own == options.precision && !shared ? 0 : working);
  if (options.rank) r.beside += (cpu && shared ? 2 : 1) * working;
  // Beside what the pass itself is forecast to take, about two values of the model's width were measured (SmolLM2, T =
  // 256: 66 MiB of 837 at K = 20, 270 MiB of 2,261 at K = 210).
  r.beside += 2 * directions.count() * r.tokens * model.config().width *
              static_cast<int64_t>(c10::elementSize(options.precision));
  Plan plan = make_plan(r);

  if (options.steps.empty() && !options.actual_each) return plan;

  // The actual losses: one forward pass at a time at moved weights, when the forms have gone.
  const Selection nothing;
  r.selection = &nothing;
  r.carried = r.matrices = 0;
  r.beside = (cpu ? 2 : 1) * stored;
  plan.check = forecast_memory(r, {.pass = Pass::primal,
                                   .batch = measured_batch(windows, options),
                                   .precision = model.weights.values[0].scalar_type(),
                                   .primal = options.precision});
  if (plan.check.total() > plan.limit)
    throw std::runtime_error(fmt::format("memory: the actual losses need {:.0f} MiB, {:.0f} MiB are allowed",
                                         static_cast<double>(plan.check.total()) / (1 << 20),
                                         static_cast<double>(plan.limit) / (1 << 20)));
  return plan;
}

QuadraticResult compute_quadratic(const Model& model, const NamedDirections& directions, const Windows& windows,
                                  const QuadraticOptions& options, const OnProgress& on_progress,
                                  const ShouldStop& stop) {
  const at::NoGradGuard no_grad;
  require_rankable(directions, options);
  return Run(model, directions, windows, options, on_progress, stop).result();
}

}  // namespace hesper
