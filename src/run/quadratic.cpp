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
#include "tangent/tangent_pass.h"

namespace hesper {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

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
    const int64_t passes = static_cast<int64_t>(options.steps.size()) + (options.actual_each ? named.count() : 0);
    progress_.units = b() + passes * static_cast<int64_t>(units().size());
  }

  QuadraticResult result() {
    const PeakMemory memory(options_.device);
    forms();
    const Clock::time_point actual = Clock::now();
    // As stored, each raised to the precision of the pass while it is used.
    const Parameters base(model_.weights.values, model_.weights.values[0].scalar_type(), options_.device);
    line(base);
    if (options_.actual_each) each(base);
    out_.actual_seconds = seconds_since(actual);
    out_.seconds = seconds_since(begin_);
    out_.mean_loss = out_.losses.mean().item<double>();
    out_.peak_memory = memory.peak();
    return std::move(out_);
  }

 private:
  int64_t b() const { return windows_.ids.size(0); }
  std::vector<Unit> units() const { return make_units(b(), options_.batch, 1, 1); }
  Tokens tokens(const Unit& unit) const {
    return make_tokens(windows_.ids.narrow(0, unit.first_window, unit.windows),
                       windows_.labels.narrow(0, unit.first_window, unit.windows), options_.device);
  }
  void done(double products) {
    ++progress_.done;
    progress_.products += products;
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
    Spread gradient, gauss_newton, residual, hessian, each;
    first_order_ = at::zeros({b()}, at::kDouble), second_order_ = at::zeros({b()}, at::kDouble);
    for (int64_t s = 0; s < b(); ++s) {
      const Tape& tape = primal.tape(s);
      const TangentPass::Forms f = TangentPass(program_, parameters, selection, tape).second_order(v, primal.place(s));
      const Tensor g = tape.gradient[primal.place(s)].cpu(), G = f.gauss_newton.cpu() / 2, R = f.residual.cpu() / 2;
      const Tensor H = G + R;
      require_finite(H, windows_.index[s]);
      require_finite(g, windows_.index[s]);
      gradient.add(g), gauss_newton.add(G), residual.add(R), hessian.add(H), each.add(g + H.diagonal());
      first_order_[s] = g.sum();
      second_order_[s] = H.sum();
      done(static_cast<double>(named_.count()));
    }
    out_.losses = primal.losses();
    out_.loss = primal.loss();
    out_.primal_seconds = primal.seconds();
    out_.gradient = gradient.finish(), out_.gauss_newton = gauss_newton.finish(), out_.residual = residual.finish();
    out_.hessian = hessian.finish(), out_.predicted_each = each.finish();
  }

  /// (b) losses at w + e times the moves that `wanted` picks, w + e d in the wider type of the two.
  template <class Wanted>
  Tensor losses_at(const Parameters& base, double e, Wanted wanted) {
    std::map<int, Tensor> values;
    for (const Move& move : named_.moves) {
      if (!wanted(move)) continue;
      Tensor& value = values[move.parameter];
      if (!value.defined()) value = base.stored(move.parameter);
      value = value.to(c10::promoteTypes(value.scalar_type(), move.values.scalar_type())).add(move.values, e);
    }
    const Parameters parameters = base.with({values.begin(), values.end()});
    Tensor losses = at::zeros({b()}, at::kDouble);
    for (const Unit& unit : units()) {
      losses.narrow(0, unit.first_window, unit.windows)
          .copy_(run_forward(program_, parameters, tokens(unit), *options_.primal));
      done(0);
    }
    return losses;
  }

  void line(const Parameters& base) {
    for (const double e : options_.steps) {
      const Tensor change = losses_at(base, e, [](const Move&) { return true; }) - out_.losses;
      const Tensor predicted = e * first_order_ + e * e * second_order_;
      LineStep step{.e = e};
      std::tie(step.predicted, step.predicted_error) = mean_of(predicted);
      std::tie(step.actual, step.actual_error) = mean_of(change);
      step.difference_error = mean_of(change - predicted).second;
      out_.line.push_back(step);
    }
  }

  void each(const Parameters& base) {
    Tensors columns;
    for (int64_t k = 0; k < named_.count(); ++k)
      columns.push_back(losses_at(base, 1, [&](const Move& move) { return move.direction == k; }) - out_.losses);
    Spread spread;
    const Tensor changes = at::stack(columns);  // (K, b)
    for (int64_t s = 0; s < b(); ++s) spread.add(changes.select(1, s));
    out_.actual_each = spread.finish();
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
  QuadraticResult out_;
};

}  // namespace

Plan plan_quadratic(const Model& model, const NamedDirections& directions, const Windows& windows,
                    const QuadraticOptions& options) {
  const Program program = build_program(model.config(), windows.ids.size(1), options.device);
  const Selection selection = directions.selection();
  PlanRequest r = plan_request(program, model, selection, windows, options);
  r.pass = Pass::gram;
  r.matrices = 8;  // sums and squares of G, R and H, and what a window adds
  r.columns = r.carried = directions.count();
  r.beside = directions.bytes(options.precision);  // in the working precision, beside the user's own
  return make_plan(r);
}

QuadraticResult compute_quadratic(const Model& model, const NamedDirections& directions, const Windows& windows,
                                  const QuadraticOptions& options, const OnProgress& on_progress,
                                  const ShouldStop& stop) {
  const at::NoGradGuard no_grad;
  return Run(model, directions, windows, options, on_progress, stop).result();
}

}  // namespace hesper
