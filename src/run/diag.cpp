#include "run/diag.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "hessian/split_samples.h"
#include "model/build_program.h"
#include "run/clock.h"
#include "run/diag_plan.h"
#include "run/exact_files.h"
#include "run/memory.h"
#include "run/primal_batches.h"
#include "run/result_files.h"

namespace hesper {
namespace {

using at::Tensor;
struct Job {
  const Model& model;
  const ResolvedSelection& selection;
  const std::vector<UnitSums>& sums;
  const Windows& windows;
  const DiagOptions& options;
  Program program;

  int64_t b() const { return windows.ids.size(0); }
};

/// z (K, n) fp64 of probes [first, first + count) of a window, and its parts where it is a sum of two.
struct WindowSamples {
  Tensor z, gauss_newton, residual;
};
WindowSamples draw(const Job& job, const TangentPass& pass, const Selection& selection, int64_t window, int64_t place,
                   int64_t first, int64_t count, at::ScalarType precision) {
  const int64_t number = job.windows.index[window];
  if (job.options.method == DiagMethod::split) {
    const AdjointStart start{AdjointStart::Kind::factor, job.options.seed, number, first, count};
    const Tensor g = gauss_newton_samples(pass, start, place);
    const Tensor r = residual_samples(pass, selection, start, place, precision);
    return {(g + r).cpu(), g.cpu(), r.cpu()};
  }
  const Tensor v = rademacher(selection, job.options.seed, number, first, count, precision);
  return {hutchinson_samples(pass, selection, v, place, job.options.curvature).cpu(), {}, {}};
}

/// A group with the moments of its tensors.
struct Estimate {
  const ProbeGroup& group;
  std::vector<DiagonalMoments> entries, sums;           // per tensor of the group
  std::vector<DiagonalMoments> gauss_newton, residual;  // entries of the parts; split only
  int64_t probes = 0, next = 0;                         // a window: done, of the next round
  std::string outcome;                                  // why it stopped; empty while it runs

  Estimate(const ProbeGroup& group, const Job& job) : group(group) {
    for (const size_t t : group.tensors) {
      entries.emplace_back(job.selection.selection.parts()[t].size, job.b());
      sums.emplace_back(job.sums[t].size(), job.b());
      if (job.options.method != DiagMethod::split) continue;
      gauss_newton.emplace_back(job.selection.selection.parts()[t].size, job.b());
      residual.emplace_back(job.selection.selection.parts()[t].size, job.b());
    }
  }
  void begin_visit(int64_t window) {
    for (auto* moments : {&entries, &sums, &gauss_newton, &residual})
      for (DiagonalMoments& m : *moments) m.begin_visit(window);
  }
  void add(const WindowSamples& samples, const std::vector<UnitSums>& units) {
    for (size_t i = 0; i < group.tensors.size(); ++i) {
      const SelectedPart& part = group.selection.parts()[i];
      const Tensor mine = samples.z.narrow(1, part.begin, part.size);
      entries[i].add(mine);
      sums[i].add(units[group.tensors[i]].of(mine));
      if (!samples.residual.defined()) continue;
      gauss_newton[i].add(samples.gauss_newton.narrow(1, part.begin, part.size));
      residual[i].add(samples.residual.narrow(1, part.begin, part.size));
    }
  }
};

/// Sum over entries of the probe variance of each tensor, from `count` pilot probes of window 0.
std::vector<double> pilot_variances(const Job& job, const ProbeGroup& group, const TangentPass& pass, int64_t count,
                                    int64_t directions) {
  DiagonalMoments moments(group.selection.size(), 1);
  moments.begin_visit(0);
  for (int64_t k = 0; k < count; k += directions)
    moments.add(draw(job, pass, group.selection, 0, 0, int64_t{pilot_probes} + k, std::min(directions, count - k),
                     job.options.precision)
                    .z);
  const DiagonalBars bars = moments.bars();
  std::vector<double> out;
  for (const SelectedPart& part : group.selection.parts())
    out.push_back(bars.probe.narrow(0, part.begin, part.size).sum().item<double>());
  return out;
}

/// Flops of one product of one window.
double product_flops(const Job& job, const Selection& selection) {
  PlanRequest r = diag_request(job.program, job.model, selection, {}, job.windows, job.options);
  r.pass = Pass::two_pass;
  r.columns = r.windows = 1;
  r.measure_precision = false;
  return make_plan(r).tangent_flops;
}

/// Joint or layer by the smaller (variance x cost), the variance's ratio a geometric mean over the tensors.
bool pilot_says_joint(const Job& job, PrimalBatches& primal, const Parameters& parameters, int64_t directions,
                      nlohmann::json& note) {
  const std::vector<ProbeGroup> together = probe_groups(job.selection, true, job.options.device),
                                alone = probe_groups(job.selection, false, job.options.device);
  const Tape& tape = primal.tape(0);
  const auto variances = [&](const ProbeGroup& group) {
    const Tape own = narrowed(tape, job.program, group.selection);
    return pilot_variances(job, group, TangentPass(job.program, parameters, group.selection, own), least_probes,
                           directions);
  };
  const std::vector<double> joint = variances(together[0]);
  double log_ratio = 0, layers = 0;
  for (size_t i = 0; i < alone.size(); ++i) {
    const double one = variances(alone[i])[0];
    if (one > 0 && joint[i] > 0) log_ratio += std::log(joint[i] / one);
    layers += product_flops(job, alone[i].selection);
  }
  const double variance = std::exp(log_ratio / static_cast<double>(alone.size()));
  const double cost = product_flops(job, job.selection.selection) / layers;
  note = {{"probes", least_probes}, {"joint_to_layer_variance", variance}, {"joint_to_layer_cost", cost}};
  return variance * cost < 1;
}

/// The first samples once more, everything in fp64.
Tensor repeat_in_double(const Job& job, const ProbeGroup& group, int64_t count) {
  const Parameters parameters(job.model.weights.values, at::kDouble, job.options.device);
  PrimalBatches primal(job.program, parameters, group.selection, job.windows, 1, at::kDouble);
  const Tape& tape = primal.tape(0);
  const TangentPass pass(job.program, parameters, group.selection, tape);
  return draw(job, pass, group.selection, 0, 0, 0, count, at::kDouble).z;
}

/// Sets what each group does next; false where all have stopped. Fills in the largest bar.
bool plan_round(const Job& job, std::vector<Estimate>& estimates, double& bar) {
  bool any = false;
  bar = 0;
  for (Estimate& e : estimates) {
    if (!e.outcome.empty()) continue;
    if (!job.options.rule) {
      e.outcome = "fixed number of probes";
      continue;
    }
    std::string outcome;
    e.next = 0;
    for (size_t i = 0; i < e.group.tensors.size(); ++i) {
      const Verdict v = judge(*job.options.rule, e.entries[i].bars(), e.sums[i].bars(), job.sums[e.group.tensors[i]],
                              job.options.probes);
      bar = std::max(bar, v.bar);
      e.next = std::max(e.next, v.more);
      if (outcome.empty() || v.reason != "reached") outcome = v.reason;
    }
    if (e.next == 0)
      e.outcome = outcome;
    else
      any = true;
  }
  return any;
}

}  // namespace

std::string to_string(ProbeScope scope) {
  return scope == ProbeScope::layer ? "layer" : scope == ProbeScope::joint ? "joint" : "auto";
}

std::string to_string(DiagMethod method) { return method == DiagMethod::split ? "split" : "hutchinson"; }

DiagonalResult compute_diag(const Model& model, const ResolvedSelection& selection, const std::vector<UnitSums>& sums,
                            const Windows& windows, const DiagOptions& options, const OnProgress& on_progress,
                            const ShouldStop& stop, const OnSamples& on_samples) {
  const at::NoGradGuard no_grad;
  if (options.method == DiagMethod::split && options.curvature != Curvature::hessian)
    throw std::invalid_argument(fmt::format("--method split is for --curvature hessian, not {}",
                                            options.curvature == Curvature::residual ? "residual" : "gauss-newton"));
  const Job job{model,   selection, sums,
                windows, options,   build_program(model.config(), windows.ids.size(1), options.device)};
  if (options.rule)
    for (size_t i = 0; i < sums.size(); ++i)
      check_rule(*options.rule, sums[i], selection.tensors[i].name, windows.ids.size(0));
  const int64_t b = job.b();
  const PeakMemory memory(options.device);
  const Clock::time_point begin = Clock::now();
  DiagonalResult result;

  bool joint = options.scope == ProbeScope::joint && selection.tensors.size() > 1;
  Plan plan = plan_groups(job.program, model, selection, probe_groups(selection, joint, options.device), sums, windows,
                          options);
  Tensor first;  // samples to repeat in fp64
  std::vector<ProbeGroup> groups;
  {
    const Parameters parameters(model.weights.values, options.precision, options.device, options.products);
    const Selection here = selection.selection.to(options.device);
    PrimalBatches primal(job.program, parameters, here, windows, plan.batch, plan.primal);
    if (options.scope == ProbeScope::automatic && selection.tensors.size() > 1) {
      nlohmann::json pilot;
      joint = pilot_says_joint(job, primal, parameters, std::min(plan.directions, least_probes), pilot);
      result.notes["pilot"] = pilot;
      if (joint)
        plan = plan_groups(job.program, model, selection, probe_groups(selection, true, options.device), sums, windows,
                           options);
    }
    groups = probe_groups(selection, joint, options.device);
    std::vector<Estimate> estimates;
    for (const ProbeGroup& group : groups) {
      estimates.emplace_back(group, job);
      estimates.back().next = options.rule ? std::min(least_probes, options.probes) : options.probes;
    }
    Progress progress;
    do {
      for (const Estimate& e : estimates)
        if (e.outcome.empty()) progress.units += b * ((e.next + plan.directions - 1) / plan.directions);
      for (int64_t s = 0; s < b; ++s) {
        const Tape& tape = primal.tape(s);
        for (Estimate& e : estimates) {
          if (!e.outcome.empty()) continue;
          const Tape own = narrowed(tape, job.program, e.group.selection);
          const TangentPass pass(job.program, parameters, e.group.selection, own);
          e.begin_visit(s);
          for (int64_t k = 0; k < e.next; k += plan.directions) {
            if (stop && stop()) throw Interrupted();
            const int64_t count = std::min(plan.directions, e.next - k);
            const WindowSamples samples =
                draw(job, pass, e.group.selection, s, primal.place(s), e.probes + k, count, options.precision);
            require_finite(samples.z, windows.index[s]);
            if (!first.defined()) first = samples.z.slice(0, 0, check_directions).clone();
            e.add(samples, sums);
            for (size_t i = 0; on_samples && i < e.group.tensors.size(); ++i) {
              const SelectedPart& part = e.group.selection.parts()[i];
              on_samples(e.group.tensors[i], s, e.probes + k, samples.z.narrow(1, part.begin, part.size));
            }
            ++progress.done;
            progress.products += static_cast<double>(count);
            progress.seconds = seconds_since(begin);
            if (on_progress) on_progress(progress);
          }
        }
      }
      for (Estimate& e : estimates)
        if (e.outcome.empty()) e.probes += e.next;
    } while (plan_round(job, estimates, progress.bar));

    result.products = static_cast<int64_t>(progress.products);
    result.loss = primal.loss();
    result.tensors.resize(selection.tensors.size());
    for (Estimate& e : estimates)
      for (size_t i = 0; i < e.group.tensors.size(); ++i) {
        TensorDiagonal& out = result.tensors[e.group.tensors[i]];
        out.entries = e.entries[i].bars();
        out.sums = e.sums[i].bars();
        if (options.rule) out.notes["stop"] = e.outcome;
        if (options.method == DiagMethod::split)
          out.notes["parts"] = {{"gauss_newton", to_json(relative_bars(e.gauss_newton[i].bars()))},
                                {"residual", to_json(relative_bars(e.residual[i].bars()))}};
      }
  }
  result.seconds = seconds_since(begin);
  if (plan.measure_precision) {
    if (stop && stop()) throw Interrupted();
    const Tensor exact = repeat_in_double(job, groups[0], first.size(0));
    result.precision_error = (first - exact).norm().item<double>() / exact.norm().item<double>();
  }
  result.peak_memory = memory.peak();
  result.device = options.device.str();
  result.precision =
      fmt::format("{} tangents, {} primal", precision_name(plan.precision, plan.products), precision_name(plan.primal));
  result.notes["probe_scope"] = joint ? "joint" : "layer";
  result.notes["plan"] = plan_json(plan);
  return result;
}

}  // namespace hesper
