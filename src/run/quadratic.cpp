#include "run/quadratic.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "model/build_program.h"
#include "run/clock.h"
#include "run/ledger.h"
#include "run/memory.h"
#include "run/primal_batches.h"
#include "run/rank_proxies.h"
#include "run/streamed_weights.h"
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
  explicit Spread(const std::vector<int64_t>& shape)
      : sum(at::zeros(shape, at::kDouble)), squares(at::zeros(shape, at::kDouble)) {}
  void add(const Tensor& x) {
    sum.add_(x);
    squares.addcmul_(x, x);
  }
  WithError finish(int64_t windows) const {
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
  Spread spread(x.sizes().slice(1).vec());
  for (int64_t s = 0; s < x.size(0); ++s) spread.add(x[s]);
  return spread.finish(x.size(0));
}

/// Windows of a measured pass: whole batches of the primal passes.
int64_t measured_batch(const Windows& windows, const QuadraticOptions& options) {
  const int64_t batches = std::max<int64_t>(1, kMeasuredTokens / windows.ids.size(1) / options.batch);
  return std::min(windows.ids.size(0), batches * options.batch);
}

/// Windows that go together.
int64_t batch_of(const Windows& windows, const QuadraticOptions& options) {
  return options.steps.empty() && !options.actual_each ? options.batch : measured_batch(windows, options);
}

class Run {
 public:
  Run(const Model& model, const NamedDirections& named, const Windows& windows, const QuadraticOptions& options,
      const RunControl& control)
      : model_(model),
        named_(named),
        windows_(windows),
        options_(options),
        program_(build_program(model.config(), windows.ids.size(1), options.devices())),
        plan_(plan_quadratic(model, named, windows, options)),
        ledger_(control, b(), batch_of(windows, options)),
        gradient_(std::vector<int64_t>{k()}),
        gauss_newton_(std::vector<int64_t>{k(), k()}),
        residual_(std::vector<int64_t>{k(), k()}),
        hessian_(std::vector<int64_t>{k(), k()}) {
    for (Tensor* t : {&losses_, &first_order_, &second_order_, &base_losses_}) *t = zeros({b()});
    for (Tensor* t : {&predicted_, &actual_}) *t = zeros({b(), k()});
    moved_losses_ = zeros({static_cast<int64_t>(options.steps.size()), b()});
    seconds_ = zeros({3});
    if (options.rank) proxies_ = {zeros({b(), k()}), zeros({b(), k()}), zeros({b(), k()}), zeros({b(), k()})};
    // Of a window: its forms, then every loss in turn.
    const int64_t moved = moved_losses_.size(0) + (options.actual_each ? k() : 0);
    ledger_.begin({plan_choices(plan_), {}, 1 + moved + (moved > 0), sums()});
  }

  QuadraticResult result() {
    const PeakMemory memory(options_.devices());
    forms();
    release_free_memory();
    mark_ = Clock::now();
    // As stored, each raised to the precision of the pass while it is used.
    const Parameters base = make_parameters(model_, program_, options_.device, plan_.check_form);
    if (!options_.steps.empty() || options_.actual_each) measure(base, base_losses_);
    for (size_t i = 0; i < options_.steps.size(); ++i)
      measure(moved(base, options_.steps[i], [](const Move&) { return true; }), moved_losses_[static_cast<int64_t>(i)]);
    if (options_.actual_each) each(base);
    ledger_.finish();
    finish();
    out_.peak_memory = memory.peak();
    return std::move(out_);
  }

 private:
  int64_t b() const { return windows_.ids.size(0); }
  int64_t k() const { return named_.count(); }
  static Tensor zeros(at::IntArrayRef shape) { return at::zeros(shape, at::kDouble); }
  NamedTensors sums() const {
    NamedTensors out = {{"losses", losses_},       {"first_order", first_order_}, {"second_order", second_order_},
                        {"predicted", predicted_}, {"base", base_losses_},        {"moved", moved_losses_},
                        {"actual", actual_},       {"seconds", seconds_}};
    for (const auto& [name, spread] : {std::pair{"gradient", &gradient_},
                                       {"gauss_newton", &gauss_newton_},
                                       {"residual", &residual_},
                                       {"hessian", &hessian_}}) {
      out.emplace_back(name, spread->sum);
      out.emplace_back(fmt::format("{}.squares", name), spread->squares);
    }
    if (options_.rank)
      for (const auto& [name, part] : kProxies) out.emplace_back(fmt::format("proxy.{}", name), proxies_.*part);
    return out;
  }
  std::vector<Unit> measured() const { return make_units(b(), measured_batch(windows_, options_), 1, 1); }
  Tokens tokens(const Unit& unit) const {
    return make_tokens(windows_.ids.narrow(0, unit.first_window, unit.windows),
                       windows_.labels.narrow(0, unit.first_window, unit.windows), options_.device);
  }

  /// g.d, d'Gd/2 and d'Rd/2 of every window.
  void forms() {
    const Selection selection = named_.selection();
    const Directions v = named_.directions(options_.precision, options_.device);
    const Parameters parameters = make_parameters(model_, program_, options_.device, plan_);
    PrimalBatches primal(program_, parameters, selection, windows_, plan_, &v);
    for (int64_t s = 0; s < b(); ++s) {
      if (!ledger_.next(s)) continue;
      const double before = primal.seconds();
      const Tape& tape = primal.tape(s);
      seconds_[0] += primal.seconds() - before;
      const TangentPass::Forms f = TangentPass(program_, parameters, selection, tape).second_order(v, primal.place(s));
      const Tensor g = tape.gradient[primal.place(s)].cpu(), G = f.gauss_newton.cpu() / 2, R = f.residual.cpu() / 2;
      const Tensor H = G + R;
      require_finite(H, windows_.index[s]);
      require_finite(g, windows_.index[s]);
      WindowProxies proxies;
      if (options_.rank) {
        const Clock::time_point begin = Clock::now();
        proxies = window_proxies(program_, parameters, selection, tape, primal.place(s), windows_.index[s], named_);
        require_finite(proxies.diagonal, windows_.index[s]);
        seconds_[1] += seconds_since(begin);
        for (const auto& [name, part] : kProxies) (proxies_.*part)[s].copy_(proxies.*part);
      }
      gradient_.add(g), gauss_newton_.add(G), residual_.add(R), hessian_.add(H);
      losses_[s].copy_(primal.losses()[s]);
      predicted_[s].copy_(g + H.diagonal());
      first_order_[s] = g.sum();
      second_order_[s] = H.sum();
      ledger_.end(s, static_cast<double>(k() * (options_.rank ? 2 : 1)));
    }
  }

  /// w + e times the moves that `wanted` picks, in the wider type of the two.
  template <class Wanted>
  Parameters moved(const Parameters& base, double e, Wanted wanted) const {
    std::map<int, Tensor> values;
    for (const Move& move : named_.moves) {
      if (!wanted(move)) continue;
      Tensor& value = values[move.parameter];
      const Tensor& stored = base.stored(move.parameter);
      if (!value.defined())
        value = stored.to(c10::promoteTypes(stored.scalar_type(), move.values.scalar_type()), false, true);
      value.add_(move.values, e);
    }
    return base.with({values.begin(), values.end()});
  }

  /// Takes the losses of a measured pass: (windows of the unit).
  void take(const Unit& unit, const Tensor& losses, Tensor out) {
    for (int64_t s = 0; s < unit.windows; ++s) require_finite(losses[s], windows_.index[unit.first_window + s]);
    out.narrow(0, unit.first_window, unit.windows).copy_(losses);
    seconds_[2] += seconds_since(std::exchange(mark_, Clock::now()));
    ledger_.end(unit.first_window, 0, unit.windows);
  }

  /// Losses (b) at these weights, all in the precision of those that they are held against: what rounding does to both
  /// cancels.
  void measure(const Parameters& parameters, const Tensor& out) {
    for (const Unit& unit : measured())
      if (ledger_.next(unit.first_window, unit.windows))
        take(unit, run_forward(program_, parameters, tokens(unit), options_.precision), out);
  }

  void each(const Parameters& base) {
    std::vector<std::vector<int>> changed(static_cast<size_t>(k()));
    for (const Move& move : named_.moves) changed[static_cast<size_t>(move.direction)].push_back(move.parameter);
    for (const Unit& unit : measured()) {
      if (ledger_.skip(unit.first_window, k(), unit.windows)) continue;
      run_variants(
          program_, base, changed, tokens(unit), options_.precision,
          [&](int64_t i) { return moved(base, 1, [i](const Move& move) { return move.direction == i; }); },
          [&](int64_t i, const Tensor& losses) { take(unit, losses, actual_.select(1, i)); },
          [&](int64_t) { return ledger_.next(unit.first_window, unit.windows); });
    }
  }

  void finish() {
    out_.losses = losses_;
    out_.loss = mean_loss(losses_, windows_);
    out_.mean_loss = losses_.mean().item<double>();
    out_.gradient = gradient_.finish(b()), out_.gauss_newton = gauss_newton_.finish(b());
    out_.residual = residual_.finish(b()), out_.hessian = hessian_.finish(b());
    out_.predicted_each = over_windows(predicted_);
    out_.line_first = over_windows(first_order_), out_.line_second = over_windows(second_order_);
    for (size_t i = 0; i < options_.steps.size(); ++i) {
      const double e = options_.steps[i];
      const Tensor change = moved_losses_[static_cast<int64_t>(i)] - base_losses_;
      const Tensor predicted = e * first_order_ + e * e * second_order_;
      LineStep step{.e = e};
      std::tie(step.predicted, step.predicted_error) = mean_of(predicted);
      std::tie(step.actual, step.actual_error) = mean_of(change);
      step.difference_error = mean_of(change - predicted).second;
      out_.line.push_back(step);
    }
    const Tensor actual = actual_ - base_losses_.unsqueeze(1);
    if (options_.actual_each) out_.actual_each = over_windows(actual);
    if (options_.rank) {
      out_.ranking = {{"actual", actual}, {"predicted", predicted_}};
      for (const auto& [name, part] : kProxies) out_.ranking.push_back({name, proxies_.*part});
      out_.ranking.push_back({"weight_error", at::tensor(named_.norms, at::kDouble).square().unsqueeze(0)});
    }
    out_.primal_seconds = seconds_[0].item<double>(), out_.proxy_seconds = seconds_[1].item<double>();
    out_.actual_seconds = seconds_[2].item<double>();
    out_.seconds = ledger_.seconds();
  }

  static constexpr std::pair<const char*, Tensor WindowProxies::*> kProxies[] = {
      {"diagonal", &WindowProxies::diagonal},
      {"gauss_newton", &WindowProxies::gauss_newton},
      {"fisher", &WindowProxies::fisher},
      {"output_error", &WindowProxies::output_error}};

  const Model& model_;
  const NamedDirections& named_;
  const Windows& windows_;
  const QuadraticOptions& options_;
  const Program program_;
  const Plan plan_;
  Ledger ledger_;
  Spread gradient_, gauss_newton_, residual_, hessian_;
  Tensor losses_, first_order_, second_order_;  // (b), the latter of all directions together
  Tensor base_losses_, moved_losses_;  // (b) at w, as the actual losses are measured; (steps, b) along the line
  Tensor predicted_, actual_;          // (b, K) of each alone
  Tensor seconds_;                     // (3): primal passes, proxies, actual losses
  WindowProxies proxies_;              // (b, K)
  Clock::time_point mark_;             // end of the last actual loss
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
  const Program program = build_program(model.config(), windows.ids.size(1), options.devices());
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

  // The actual losses: one forward pass at a time at moved weights (in the moves' type, and rounded to the stored one),
  // when the forms have gone.
  const Selection nothing;
  r.selection = &nothing;
  r.carried = r.matrices = 0;
  r.beside = (cpu ? 2 : 1) * stored + directions.bytes(model.weights.values[0].scalar_type());
  plan.check_form = {.pass = Pass::primal,
                     .batch = measured_batch(windows, options),
                     .precision = model.weights.values[0].scalar_type(),
                     .primal = options.precision};
  const std::optional<Memory> memory = fit_form(r, plan.check_form, plan.limit);
  if (!memory)
    throw std::runtime_error(fmt::format("memory: the actual losses need {:.0f} MiB, {:.0f} MiB are allowed",
                                         static_cast<double>(forecast_memory(r, plan.check_form).total()) / (1 << 20),
                                         static_cast<double>(plan.limit) / (1 << 20)));
  plan.check = *memory;
  return plan;
}

QuadraticResult compute_quadratic(const Model& model, const NamedDirections& directions, const Windows& windows,
                                  const QuadraticOptions& options, const RunControl& control) {
  const at::NoGradGuard no_grad;
  require_rankable(directions, options);
  const QuadraticOptions resumed = resumed_options(options, control);
  return Run(model, directions, windows, resumed, control).result();
}

}  // namespace hesper
