#include "run/exact.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>

#include "hessian/autograd_engine.h"
#include "model/build_program.h"
#include "run/clock.h"
#include "run/ledger.h"
#include "run/memory.h"
#include "tangent/tangent_pass.h"

namespace hesper {
namespace {

/// Sums over windows of one curvature's matrix, fp64, in the order of the ledger.
struct Sum {
  Curvature kind;
  Tensor total;             // (n, n)
  Tensor squares;           // (n, n) with full errors
  double square_norms = 0;  // sum_s |H_s|_F^2

  Sum(Curvature kind, int64_t n, bool full) : kind(kind), total(at::zeros({n, n}, at::kDouble)) {
    if (full) squares = at::zeros({n, n}, at::kDouble);
  }
  /// rows: rows [begin, ...) of one window's matrix.
  void add(const Tensor& rows, int64_t begin) {
    total.narrow(0, begin, rows.size(0)).add_(rows);
    if (squares.defined()) squares.narrow(0, begin, rows.size(0)).addcmul_(rows, rows);
    const double norm = rows.norm().item<double>();
    square_norms += norm * norm;
  }
  ExactBlock finish(int64_t b, bool symmetric) {
    ExactBlock out;
    out.kind = kind;
    out.matrix = total.div_(b);
    const double norm = out.matrix.norm().item<double>();
    if (!symmetric && norm > 0) out.symmetry_error = (out.matrix - out.matrix.t()).norm().item<double>() / norm;
    if (b < 2) return out;
    const double spread = std::max(0.0, square_norms - static_cast<double>(b) * norm * norm);
    if (norm > 0) out.data_error = std::sqrt(spread / static_cast<double>(b * (b - 1))) / norm;
    if (squares.defined())
      out.standard_error = squares.div_(b).sub_(out.matrix.square()).clamp_min_(0).div_(b - 1).sqrt_();
    return out;
  }
};

struct Job {
  const Model& model;
  const Windows& windows;
  const ExactOptions& options;
  Selection selection;  // on the device
  Program program;

  Job(const Model& model, const Selection& selection, const Windows& windows, const ExactOptions& options)
      : model(model),
        windows(windows),
        options(options),
        selection(selection.to(options.device)),
        program(build_program(model.config(), windows.ids.size(1), options.device)) {}

  int64_t b() const { return windows.ids.size(0); }
  Tokens tokens(int64_t first, int64_t count) const {
    return make_tokens(windows.ids.narrow(0, first, count), windows.labels.narrow(0, first, count), options.device);
  }
};

Plan plan_of(const Job& job) {
  PlanRequest r = plan_request(job.program, job.model, job.selection, job.windows, job.options);
  r.pass = job.options.pass;
  r.matrices = static_cast<int>(job.options.curvatures.size()) * (job.options.full_errors ? 2 : 1);
  return make_plan(r);
}

Tensor selected_weights(const Model& model, const Selection& selection) {
  Tensors parts;
  for (const SelectedPart& part : selection.parts())
    parts.push_back(model.weights.values[part.parameter].flatten().index_select(0, part.flat).to(at::kDouble));
  return at::cat(parts);
}

/// Rows of window s's matrix of each kind asked for.
std::vector<Tensor> window_rows(const TangentPass& pass, const Directions& v, int64_t s, const Plan& plan,
                                const std::vector<Curvature>& kinds) {
  std::vector<Tensor> out;
  if (plan.pass == Pass::gram) {
    const TangentPass::Forms f = pass.second_order(v, s);
    for (Curvature kind : kinds)
      out.push_back(kind == Curvature::gauss_newton ? f.gauss_newton
                    : kind == Curvature::residual   ? f.residual
                                                    : f.gauss_newton + f.residual);
  } else {
    for (Curvature kind : kinds) out.push_back(pass.product(v, s, kind, plan.recompute));
  }
  for (Tensor& rows : out) rows = rows.cpu();
  return out;
}

void require_finite(const Tensor& t, int64_t window) {
  if (!t.isfinite().all().item<bool>())
    throw std::runtime_error(
        fmt::format("window {}: the result is not finite (overflow in the model or its weights)", window));
}

/// Columns `columns` of window 0's matrix once more, everything in fp64 by the two-pass product.
Tensor repeat_in_double(const Job& job, const Tensor& columns, bool recompute) {
  const Parameters parameters(job.model.weights.values, at::kDouble, job.options.device);
  const Tape tape = run_primal(job.program, parameters, job.selection, job.tokens(0, 1), at::kDouble);
  release_free_memory();
  const TangentPass pass(job.program, parameters, job.selection, tape);
  Tensors rows;
  for (int64_t i = 0; i < columns.numel(); i += check_directions) {
    const Tensor some = columns.slice(0, i, std::min(i + check_directions, columns.numel()));
    const Tensor v = at::zeros({some.numel(), job.selection.size()}, at::kDouble).scatter_(1, some.unsqueeze(1), 1);
    const Directions directions = Directions::dense(job.selection, v, at::kDouble);
    rows.push_back(pass.product(directions, 0, job.options.curvatures[0], recompute).cpu());
  }
  return at::cat(rows);
}

}  // namespace

Plan plan_exact(const Model& model, const Selection& selection, const Windows& windows, const ExactOptions& options) {
  return plan_of(Job(model, selection, windows, options));
}

ExactResult compute_exact(const Model& model, const Selection& selection, const Windows& windows,
                          const ExactOptions& options, const OnProgress& on_progress, const ShouldStop& stop,
                          const OnRows& on_rows) {
  const at::NoGradGuard no_grad;
  const Job job(model, selection, windows, options);
  const bool autograd = options.engine == Engine::autograd;
  if (autograd && options.curvatures != std::vector<Curvature>{Curvature::hessian})
    throw std::invalid_argument("--engine autograd computes --curvature hessian only");
  const int64_t n = selection.size(), b = job.b();
  ExactResult result;
  const PeakMemory memory(options.device);
  result.plan = plan_of(job);
  const Plan& plan = result.plan;

  std::vector<Sum> sums;
  for (Curvature kind : options.curvatures) sums.emplace_back(kind, n, options.full_errors && b >= 2);
  Tensor gradient = at::zeros({n}, at::kDouble);
  result.losses = at::zeros({b}, at::kDouble);
  result.weights = selected_weights(model, selection);
  const Tensor columns = std::get<0>(at::randperm(n, at::kLong).slice(0, 0, precision_columns(n)).sort());
  Tensor sample = at::zeros({columns.numel(), n}, at::kDouble);  // those of window 0

  const Clock::time_point begin = Clock::now();
  const std::vector<Unit> units = make_units(b, plan.batch, n, plan.directions);
  {
    const Parameters parameters(model.weights.values, options.precision, options.device, options.products);
    std::optional<Tape> tape;
    std::optional<AutogradEngine> rival;
    Progress progress{static_cast<int64_t>(units.size()), 0, 0, 0};
    for (const Unit& unit : units) {
      if (unit.begin == 0) {  // a new batch
        const Clock::time_point primal = Clock::now();
        tape.reset();
        rival.reset();
        const Tokens tokens = job.tokens(unit.first_window, unit.windows);
        if (autograd) {
          rival.emplace(job.program, parameters, job.selection, tokens, options.precision);
          result.losses.narrow(0, unit.first_window, unit.windows).copy_(rival->losses());
          gradient.add_(rival->gradient().cpu());
        } else {
          tape.emplace(run_primal(job.program, parameters, job.selection, tokens, plan.primal));
          release_free_memory();
          result.losses.narrow(0, unit.first_window, unit.windows).copy_(tape->losses);
          gradient.add_(tape->gradient.sum(0).cpu());
        }
        require_finite(result.losses.narrow(0, unit.first_window, unit.windows), unit.first_window);
        result.primal_seconds += seconds_since(primal);
      }
      for (int64_t s = 0; s < unit.windows; ++s) {
        if (stop && stop()) throw Interrupted("interrupted");
        if (autograd && s > 0) break;  // its graph sums the windows of a batch
        std::vector<Tensor> rows;
        if (autograd) {
          rows = {rival->columns(unit.begin, unit.end).to(at::kCPU, at::kDouble)};
        } else {
          const TangentPass pass(job.program, parameters, job.selection, *tape);
          rows = window_rows(pass, Directions::units(job.selection, unit.begin, unit.end, options.precision), s, plan,
                             options.curvatures);
        }
        for (size_t i = 0; i < sums.size(); ++i) sums[i].add(rows[i], unit.begin);
        require_finite(rows[0], windows.index[unit.first_window + s]);
        if (on_rows) on_rows(unit.first_window + s, unit.begin, rows[0]);
        if (unit.first_window + s == 0)
          for (int64_t c = 0; c < columns.numel(); ++c)
            if (const int64_t row = columns[c].item<int64_t>(); row >= unit.begin && row < unit.end)
              sample[c].copy_(rows[0][row - unit.begin]);
      }
      ++progress.done;
      progress.products += static_cast<double>((unit.end - unit.begin) * unit.windows);
      progress.seconds = seconds_since(begin);
      if (on_progress) on_progress(progress);
    }
    result.products = static_cast<int64_t>(progress.products);
  }
  release_free_memory();
  result.seconds = seconds_since(begin);

  for (Sum& sum : sums) {
    result.blocks.push_back(sum.finish(b, !autograd && plan.pass == Pass::gram));
    // The rival sums the windows of a batch: its spread over windows is known only at one window a batch.
    if (autograd && plan.batch > 1)
      result.blocks.back().data_error.reset(), result.blocks.back().standard_error = Tensor();
  }
  result.gradient = gradient / static_cast<double>(b);
  result.mean_loss = result.losses.mean().item<double>();
  const Tensor counts = windows.labels.slice(1, 1).ge(0).sum(1).to(at::kDouble);
  result.loss = ((result.losses * counts).sum() / counts.sum()).item<double>();

  if (options.precision == at::kDouble && !autograd) {
    result.precision_note = "computed in fp64";
  } else if (!plan.measure_precision || autograd) {
    result.precision_note = autograd ? "not measured with --engine autograd"
                                     : "not measured: the fp64 repeat does not fit the memory limit";
    if (!options.measure_precision) result.precision_note = "not asked for";
  } else {
    if (stop && stop()) throw Interrupted("interrupted");
    const Clock::time_point check = Clock::now();
    const Tensor exact = repeat_in_double(job, columns, plan.check_recomputes);
    release_free_memory();
    result.precision_error = (sample - exact).norm().item<double>() / exact.norm().item<double>();
    result.precision_columns = columns.numel();
    result.precision_seconds = seconds_since(check);
  }
  result.peak_memory = memory.peak();
  return result;
}

at::Tensor perplexity_hessian(const at::Tensor& hessian, const at::Tensor& gradient, double mean_loss) {
  return (hessian + gradient.outer(gradient)) * std::exp(mean_loss);
}

double WindowLosses::loss() const {
  const Tensor n = counts.to(at::kDouble);
  return ((losses * n).sum() / n.sum()).item<double>();
}

double WindowLosses::standard_error() const {
  return (losses.std(0, true) / std::sqrt(static_cast<double>(losses.numel()))).item<double>();
}

WindowLosses compute_losses(const Model& model, const Windows& windows, at::ScalarType precision, int64_t batch,
                            at::Device device, const OnProgress& on_progress) {
  const at::NoGradGuard no_grad;
  ExactOptions options;
  options.device = device;
  const Selection nothing;
  const Job job(model, nothing, windows, options);
  const Parameters parameters(model.weights.values, model.weights.values[0].scalar_type(), device);
  const int64_t b = job.b();
  WindowLosses out{at::zeros({b}, at::kDouble), windows.labels.slice(1, 1).ge(0).sum(1)};
  const Clock::time_point begin = Clock::now();
  const std::vector<Unit> units = make_units(b, batch, 1, 1);
  for (size_t i = 0; i < units.size(); ++i) {
    const Unit& u = units[i];
    out.losses.narrow(0, u.first_window, u.windows)
        .copy_(run_forward(job.program, parameters, job.tokens(u.first_window, u.windows), precision));
    if (on_progress)
      on_progress({static_cast<int64_t>(units.size()), static_cast<int64_t>(i) + 1, static_cast<double>(i + 1),
                   seconds_since(begin)});
  }
  return out;
}

}  // namespace hesper
