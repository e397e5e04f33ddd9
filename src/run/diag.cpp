#include "run/diag.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "model/build_program.h"
#include "run/clock.h"
#include "run/diag_estimate.h"
#include "run/exact_files.h"
#include "run/krylov.h"
#include "run/memory.h"
#include "run/result_files.h"
#include "run/scope_pilot.h"

namespace hesper {
namespace {

using at::Tensor;

/// The first samples once more, everything in fp64.
Tensor repeat_in_double(const DiagJob& job, const ProbeGroup& group, int64_t count) {
  const Parameters parameters(job.model.weights.values, at::kDouble, job.options.device);
  PrimalBatches primal(job.program, parameters, group.selection, job.windows, 1, at::kDouble);
  const Tape& tape = primal.tape(0);
  const TangentPass pass(job.program, parameters, group.selection, tape);
  const int64_t probe = job.options.method == DiagMethod::krylov ? int64_t{basis_probes} : 0;
  return draw(job, pass, group.selection, 0, 0, probe, count, at::kDouble).z;
}

/// Sets what each group does next; false where all have stopped. Fills in the largest bar.
bool plan_round(const DiagJob& job, std::vector<Estimate>& estimates, double& bar) {
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
      const Verdict v = judge(*job.options.rule, e.all.entries[i].bars(), e.all.sums[i].bars(), *e.all.units[i],
                              job.options.probes - e.spent);
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

/// The group's results, in their places.
void take(const DiagJob& job, const Estimate& e, std::vector<TensorDiagonal>& tensors) {
  for (size_t i = 0; i < e.group.tensors.size(); ++i) {
    TensorDiagonal& out = tensors[e.group.tensors[i]];
    out.entries = e.all.entries[i].bars();
    out.sums = e.all.sums[i].bars();
    if (job.options.rule) out.notes["stop"] = e.outcome;
    if (e.deflation) out.notes["basis"] = e.basis;
    if (job.options.method == DiagMethod::split)
      out.notes["parts"] = {{"gauss_newton", to_json(relative_bars(e.gauss_newton[i].bars()))},
                            {"residual", to_json(relative_bars(e.residual[i].bars()))}};
  }
}

}  // namespace

std::string to_string(ProbeScope scope) {
  return scope == ProbeScope::layer ? "layer" : scope == ProbeScope::joint ? "joint" : "auto";
}

std::string to_string(DiagMethod method) {
  switch (method) {
    case DiagMethod::split:
      return "split";
    case DiagMethod::krylov:
      return "krylov";
    case DiagMethod::automatic:
      return "auto";
    default:
      return "hutchinson";
  }
}

DiagonalResult compute_diag(const Model& model, const ResolvedSelection& selection, const std::vector<UnitSums>& sums,
                            const Windows& windows, const DiagOptions& options, const OnProgress& on_progress,
                            const ShouldStop& stop, const OnSamples& on_samples) {
  const at::NoGradGuard no_grad;
  const Program program = build_program(model.config(), windows.ids.size(1), options.device);
  const DiagJob job{model, selection, sums, windows, options, program};
  if (options.rule)
    for (size_t i = 0; i < sums.size(); ++i) check_rule(*options.rule, sums[i], selection.tensors[i].name, job.b());
  const PeakMemory memory(options.device);
  const Clock::time_point begin = Clock::now();
  const bool krylov = options.method == DiagMethod::krylov;
  DiagonalResult result;

  bool joint = options.scope == ProbeScope::joint && selection.tensors.size() > 1;
  GroupPlan plan = plan_groups(job.program, model, selection, probe_groups(selection, joint, options.device), sums,
                               windows, options);
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
    result.tensors.resize(selection.tensors.size());
    Progress progress;
    const OnChunk carried = [&](int64_t directions) {
      if (stop && stop()) throw Interrupted();
      ++progress.done;
      progress.units = std::max(progress.units, progress.done);
      progress.products += static_cast<double>(directions);
      progress.seconds = seconds_since(begin);
      if (on_progress) on_progress(progress);
    };
    const auto chunks = [&](int64_t probes) { return job.b() * ((probes + plan.directions - 1) / plan.directions); };
    const auto rounds = [&](std::vector<Estimate>& estimates) {
      do {
        for (const Estimate& e : estimates)
          if (e.outcome.empty()) progress.units += chunks(e.next);
        for (int64_t s = 0; s < job.b(); ++s) {
          const Tape& tape = primal.tape(s);
          for (Estimate& e : estimates) {
            if (!e.outcome.empty()) continue;
            const Tape own = narrowed(tape, job.program, e.group.selection);
            const TangentPass pass(job.program, parameters, e.group.selection, own);
            e.begin_visit(s);
            for (int64_t k = 0; k < e.next; k += plan.directions) {
              const int64_t count = std::min(plan.directions, e.next - k);
              const WindowSamples samples = draw(job, pass, e.group.selection, s, primal.place(s), e.probes + k, count,
                                                 options.precision, e.deflation ? &*e.deflation : nullptr);
              require_finite(samples.z, windows.index[static_cast<size_t>(s)]);
              if (!first.defined()) first = samples.z.slice(0, 0, check_directions).clone();
              e.add(samples);
              for (size_t i = 0; on_samples && i < e.group.tensors.size(); ++i) {
                const SelectedPart& part = e.group.selection.parts()[i];
                on_samples(e.group.tensors[i], s, e.probes + k, samples.z.narrow(1, part.begin, part.size));
              }
              carried(count);
            }
          }
        }
        for (Estimate& e : estimates)
          if (e.outcome.empty()) e.probes += e.next;
      } while (plan_round(job, estimates, progress.bar));
      for (const Estimate& e : estimates) take(job, e, result.tensors);
    };

    std::vector<Estimate> estimates;
    for (const ProbeGroup& group : groups) {
      Estimate& e = estimates.emplace_back(group, job);
      if (krylov) {  // one group after another: one basis at a time
        const Tensor start = grow_basis(job, e, primal, parameters, plan.directions, plan.basis, carried);
        if (!first.defined()) first = start;
      }
      const int64_t left = options.probes - e.spent;
      e.next = options.rule ? std::min(least_probes, left) : left;
      if (!krylov) continue;
      rounds(estimates);
      estimates.clear();
    }
    if (!krylov) rounds(estimates);
    result.products = static_cast<int64_t>(progress.products);
    result.loss = primal.loss();
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
