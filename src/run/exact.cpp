#include "run/exact.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "hessian/autograd_engine.h"
#include "model/build_program.h"
#include "run/clock.h"
#include "run/exact_files.h"
#include "run/exact_totals.h"
#include "run/memory.h"
#include "run/primal_batches.h"
#include "run/streamed_weights.h"
#include "tangent/tangent_pass.h"

namespace hesper {
namespace {

struct Job {
  const Model& model;
  const Windows& windows;
  const ExactOptions& options;
  Program program;
  Selection selection;  // each part on the device of its parameter

  Job(const Model& model, const Selection& selection, const Windows& windows, const ExactOptions& options)
      : model(model),
        windows(windows),
        options(options),
        program(build_program(model.config(), windows.ids.size(1), options.devices(), options.absent)),
        selection(options.absent ? selection : selection.to(program.parameter_devices())) {}

  int64_t b() const { return windows.ids.size(0); }
  Tokens tokens(int64_t first, int64_t count) const {
    return make_tokens(windows.ids.narrow(0, first, count), windows.labels.narrow(0, first, count), options.device);
  }
};

Plan plan_of(const Job& job) {
  PlanRequest r = plan_request(job.program, job.model, job.selection, job.windows, job.options);
  r.pass = job.options.pass;
  r.matrices = static_cast<int>(job.options.curvatures.size()) * (job.options.full_errors ? 2 : 1);
  Plan plan = make_plan(r);
  // Streamed weights come once for all directions of a product: in the fp64 repeat as many as fit.
  const int64_t columns = precision_columns(job.selection.size());
  for (RunForm more = plan.check_form; plan.measure_precision && more.streamed && more.directions < columns;) {
    more.directions = std::min(2 * more.directions, columns);
    const Memory memory = forecast_memory(r, more);
    if (memory.total() > plan.limit) break;
    plan.check_form = more, plan.check = memory;
  }
  return plan;
}

Tensor selected_weights(const Model& model, const Selection& selection) {
  Tensors parts;
  for (const SelectedPart& part : selection.parts())
    parts.push_back(model.weights.values[part.parameter].flatten().index_select(0, part.entries()).to(at::kDouble));
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

/// Columns `columns` of window 0's matrix once more, everything in fp64 by the two-pass product.
Tensor repeat_in_double(const Job& job, const Tensor& columns, const Plan& plan) {
  const RunForm& form = plan.check_form;
  const Parameters parameters = make_parameters(job.model, job.program, job.options.device, form);
  const Tape tape =
      run_primal(job.program, parameters, job.selection, job.tokens(0, 1), form.primal, nullptr, form.spilled);
  release_free_memory();
  const TangentPass pass(job.program, parameters, job.selection, tape);
  Tensors rows;
  for (int64_t i = 0; i < columns.numel(); i += form.directions) {
    const Tensor some = columns.slice(0, i, std::min(i + form.directions, columns.numel()));
    const Tensor v = at::zeros({some.numel(), job.selection.size()}, at::kDouble).scatter_(1, some.unsqueeze(1), 1);
    const Directions directions = Directions::dense(job.selection, v, at::kDouble);
    rows.push_back(pass.product(directions, 0, job.options.curvatures[0], form.recompute).cpu());
  }
  return at::cat(rows);
}

}  // namespace

Plan plan_exact(const Model& model, const Selection& selection, const Windows& windows, const ExactOptions& options) {
  return plan_of(Job(model, selection, windows, options));
}

ExactOptions resumed_options(ExactOptions options, const RunControl& control) {
  if (!control.snapshots || !control.snapshots->from) return options;
  const nlohmann::json& choices = control.snapshots->from->plan;
  keep_choices(options, choices);
  options.pass = choices.at("pass") == "gram" ? Pass::gram : Pass::two_pass;
  return options;
}

ExactResult compute_exact(const Model& model, const Selection& selection, const Windows& windows,
                          const ExactOptions& given, const RunControl& control, const OnRows& on_rows) {
  const at::NoGradGuard no_grad;
  const ExactOptions options = resumed_options(given, control);
  const Job job(model, selection, windows, options);
  const bool autograd = options.engine == Engine::autograd;
  if (autograd && options.curvatures != std::vector<Curvature>{Curvature::hessian})
    throw std::invalid_argument("--engine autograd computes --curvature hessian only");
  const int64_t n = selection.size(), b = job.b();
  ExactResult result;
  const PeakMemory memory(options.devices());
  result.plan = plan_of(job);
  const Plan& plan = result.plan;
  result.weights = selected_weights(model, selection);

  ExactTotals totals(options, n, b);
  Ledger ledger(control, b, plan.batch);
  ledger.begin({plan_choices(plan), {}, (n + plan.directions - 1) / plan.directions, totals.sums()});
  {
    const Parameters parameters = make_parameters(model, job.program, options.device, plan);
    std::optional<Tape> tape;
    std::optional<AutogradEngine> rival;
    int64_t held = -1;  // first window of the batch on the tape
    for (const Unit& unit : make_units(b, plan.batch, n, plan.directions)) {
      // A step is a window of a unit; the rival's graph sums the windows of a batch: all of them.
      const int64_t together = autograd ? unit.windows : 1;
      for (int64_t s = unit.first_window; s < unit.first_window + unit.windows; s += together) {
        if (!ledger.next(s, together)) continue;
        if (unit.first_window != held) {  // another batch
          const Clock::time_point primal = Clock::now();
          tape.reset();
          rival.reset();
          const Tokens tokens = job.tokens(unit.first_window, unit.windows);
          if (autograd)
            rival.emplace(job.program, parameters, job.selection, tokens, options.precision);
          else
            tape.emplace(
                run_primal(job.program, parameters, job.selection, tokens, plan.primal, nullptr, plan.spilled));
          held = unit.first_window;
          if (s == unit.first_window && ledger.is_first(s))
            totals.add(unit, autograd ? rival->losses() : tape->losses,
                       autograd ? rival->gradient() : tape->gradient.sum(0));
          release_free_memory();
          totals.primal_seconds.add_(seconds_since(primal));
        }
        std::vector<Tensor> rows;
        if (autograd) {
          rows = {rival->columns(unit.begin, unit.end).to(at::kCPU, at::kDouble)};
        } else {
          const TangentPass pass(job.program, parameters, job.selection, *tape);
          rows = window_rows(pass, Directions::units(job.selection, unit.begin, unit.end, options.precision),
                             s - unit.first_window, plan, options.curvatures);
        }
        require_finite(rows[0], windows.index[s]);
        totals.add(rows, unit.begin, s);
        if (on_rows) on_rows(s, unit.begin, rows[0]);
        ledger.end(s, static_cast<double>((unit.end - unit.begin) * together), together);
      }
    }
  }
  ledger.finish();
  result.products = ledger.products();
  release_free_memory();
  result.seconds = ledger.seconds();
  result.primal_seconds = totals.primal_seconds.item<double>();

  if (plan.measure_precision && !autograd) ledger.stop_here();  // the sums are still what a snapshot holds
  for (MatrixSum& sum : totals.matrices) {
    result.blocks.push_back(sum.finish(b, !autograd && plan.pass == Pass::gram));
    // The rival sums the windows of a batch: its spread over windows is known only at one window a batch.
    if (autograd && plan.batch > 1)
      result.blocks.back().data_error.reset(), result.blocks.back().standard_error = Tensor();
  }
  result.gradient = totals.gradient / static_cast<double>(b);
  result.losses = totals.losses;
  result.mean_loss = result.losses.mean().item<double>();
  result.loss = mean_loss(result.losses, windows);

  if (options.precision == at::kDouble && !autograd) {
    result.precision_note = "computed in fp64";
  } else if (!plan.measure_precision || autograd) {
    result.precision_note = autograd ? "not measured with --engine autograd"
                                     : "not measured: the fp64 repeat does not fit the memory limit";
    if (!options.measure_precision) result.precision_note = "not asked for";
  } else {
    const Clock::time_point check = Clock::now();
    const Tensor exact = repeat_in_double(job, totals.columns, plan);
    release_free_memory();
    result.precision_error = (totals.sample - exact).norm().item<double>() / exact.norm().item<double>();
    result.precision_columns = totals.columns.numel();
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
  if (losses.numel() < 2) return std::numeric_limits<double>::quiet_NaN();
  return (losses.std(0, true) / std::sqrt(static_cast<double>(losses.numel()))).item<double>();
}

Plan plan_losses(const Model& model, const Windows& windows, const EngineOptions& options) {
  const Program program = build_program(model.config(), windows.ids.size(1), options.devices());
  const Selection nothing;
  PlanRequest r = plan_request(program, model, nothing, windows, options);
  r.pass = Pass::primal;
  r.precision = model.weights.values[0].scalar_type();  // as stored, each raised while it is used
  r.columns = 1;
  r.matrices = 0;
  r.measure_precision = false;
  return make_plan(r);
}

WindowLosses compute_losses(const Model& model, const Windows& windows, const EngineOptions& options,
                            const OnProgress& on_progress) {
  const at::NoGradGuard no_grad;
  const Plan plan = plan_losses(model, windows, options);
  ExactOptions engine;
  engine.device = options.device, engine.others = options.others;
  const Selection nothing;
  const Job job(model, nothing, windows, engine);
  const Parameters parameters = make_parameters(model, job.program, options.device, plan);
  const int64_t b = job.b();
  WindowLosses out{at::zeros({b}, at::kDouble), windows.labels.slice(1, 1).ge(0).sum(1)};
  const Clock::time_point begin = Clock::now();
  const std::vector<Unit> units = make_units(b, plan.batch, 1, 1);
  for (size_t i = 0; i < units.size(); ++i) {
    const Unit& u = units[i];
    out.losses.narrow(0, u.first_window, u.windows)
        .copy_(run_forward(job.program, parameters, job.tokens(u.first_window, u.windows), plan.primal));
    if (on_progress)
      on_progress({static_cast<int64_t>(units.size()), static_cast<int64_t>(i) + 1, static_cast<double>(i + 1),
                   seconds_since(begin)});
  }
  return out;
}

}  // namespace hesper
