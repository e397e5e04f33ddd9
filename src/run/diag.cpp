#include "run/diag.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "model/build_program.h"
#include "run/diag_estimate.h"
#include "run/diag_in_turn.h"
#include "run/exact_files.h"
#include "run/krylov.h"
#include "run/memory.h"
#include "run/result_files.h"
#include "run/scope_pilot.h"
#include "run/streamed_weights.h"

namespace hesper {
namespace {

using at::Tensor;

/// The first samples once more, everything in fp64.
Tensor repeat_in_double(const DiagJob& job, const ProbeGroup& group, int64_t count, const RunForm& form) {
  const Parameters parameters = make_parameters(job.model, job.program, job.options.device, form);
  PrimalBatches primal(job.program, parameters, group.selection, job.windows, form);
  const Tape& tape = primal.tape(0);
  const TangentPass pass(job.program, parameters, group.selection, tape);
  const int64_t probe = job.options.method == DiagMethod::krylov ? int64_t{basis_probes} : 0;
  return draw(job, pass, group.selection, 0, 0, probe, count, form).z.cpu();
}

nlohmann::json round_note(const Estimate& e) {
  return {{"probes", e.probes}, {"next", e.next}, {"outcome", e.outcome}};
}
void read_round(Estimate& e, const nlohmann::json& note) {
  e.probes = note.at("probes").get<int64_t>(), e.next = note.at("next").get<int64_t>();
  e.outcome = note.at("outcome").get<std::string>();
}

/// What each group does next by the rule, and the largest bar.
nlohmann::json judge_round(const DiagJob& job, std::vector<Estimate>& estimates) {
  double bar = 0;
  nlohmann::json rounds = nlohmann::json::array();
  for (Estimate& e : estimates) {
    e.probes += std::exchange(e.next, 0);
    std::string outcome;
    for (size_t i = 0; e.outcome.empty() && i < e.group.tensors.size(); ++i) {
      const Verdict v = judge(*job.options.rule, e.all.entries[i].bars(), e.all.sums[i].bars(), *e.all.units[i],
                              job.options.probes - e.spent);
      bar = std::max(bar, v.bar);
      e.next = std::max(e.next, v.more);
      if (outcome.empty() || v.reason != "reached") outcome = v.reason;
    }
    if (e.next == 0 && e.outcome.empty()) e.outcome = outcome;
    rounds.push_back(round_note(e));
  }
  return {{"bar", bar}, {"rounds", rounds}};
}

/// Sets what each group does next; false where all have stopped. Tells the ledger the largest bar.
bool plan_round(const DiagJob& job, std::vector<Estimate>& estimates, Ledger& ledger) {
  if (!job.options.rule) return false;
  ledger.gather();
  const nlohmann::json next = ledger.control().decided([&] { return judge_round(job, estimates); });
  bool any = false;
  for (size_t i = 0; i < estimates.size(); ++i) {
    read_round(estimates[i], next.at("rounds").at(i));
    any = any || estimates[i].next > 0;
  }
  ledger.set_bar(next.at("bar").get<double>());
  return any;
}

/// A part sees its own windows only, and no other's.
void refuse_parts(const DiagOptions& options, const RunControl& control) {
  if (control.part.whole()) return;
  const auto refuse = [&](const char* why) {
    throw std::invalid_argument(fmt::format("{}: {}", control.shared_by(), why));
  };
  if (options.method == DiagMethod::krylov)
    refuse("--method krylov grows its basis from all windows; ranks can share it (hesper launch), parts cannot");
  if (options.rule) refuse("--rel-error looks at all windows; ranks can share it (hesper launch), parts cannot");
  if (options.scope == ProbeScope::automatic)
    refuse("--probe-scope auto decides by a pilot; ranks can share it (hesper launch), parts cannot");
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
                            const Windows& windows, const DiagOptions& given, const RunControl& control,
                            const OnSamples& on_samples) {
  const at::NoGradGuard no_grad;
  refuse_parts(given, control);
  const bool krylov = given.method == DiagMethod::krylov, several = selection.tensors.size() > 1;
  if (krylov && several && given.scope == ProbeScope::layer) {
    Snapshots::Before none;
    return compute_in_turn(model, selection, sums, windows, given, {}, control,
                           control.snapshots ? control.snapshots->before : none);
  }
  const DiagOptions options = resumed_options(given, control);
  const Program program = build_program(model.config(), windows.ids.size(1), options.devices());
  const DiagJob job{model, selection, sums, windows, options, program};
  if (options.rule)
    for (size_t i = 0; i < sums.size(); ++i) check_rule(*options.rule, sums[i], selection.tensors[i].name, job.b());
  const PeakMemory memory(options.devices());
  DiagonalResult result;
  Ledger ledger(control, job.b(), options.batch);
  const nlohmann::json& resumed = ledger.resumed();

  bool joint = options.scope != ProbeScope::layer && several;  // auto: the larger plan until the pilot has spoken
  GroupPlan plan =
      plan_groups(job.program, model, selection, probe_groups(selection, joint, job.program), sums, windows, options);
  Tensor first;  // samples to repeat in fp64
  std::vector<ProbeGroup> groups;
  {
    const Parameters parameters = make_parameters(model, program, options.device, plan);
    const Selection here = selection.selection.to(program.parameter_devices());
    PrimalBatches primal(job.program, parameters, here, windows, plan);
    nlohmann::json pilot;
    if (options.scope == ProbeScope::automatic && several) {
      if (resumed.is_null()) {
        RunForm form = plan;
        form.directions = std::min(plan.directions, least_probes);
        joint = control.decided([&] { return pilot_says_joint(job, primal, parameters, form, pilot); }).get<bool>();
      } else {
        joint = resumed.at("joint").get<bool>(), pilot = resumed.at("pilot");
      }
      result.notes["pilot"] = pilot;
      if (!joint) {
        const RunForm kept = plan;
        plan = plan_groups(job.program, model, selection, probe_groups(selection, false, job.program), sums, windows,
                           options);
        plan.streamed = kept.streamed, plan.spilled = kept.spilled;
      }
    }
    groups = probe_groups(selection, joint, job.program);
    result.tensors.resize(selection.tensors.size());

    std::vector<Estimate> estimates;
    estimates.reserve(groups.size());
    const Tensor losses = at::zeros({job.b()}, at::kDouble);
    first = at::zeros({std::min({check_directions, plan.directions, options.probes}), groups[0].selection.size()},
                      at::kDouble);
    NamedTensors tensors = {{"losses", losses}, {"first", first}};
    for (const ProbeGroup& group : groups) {
      Estimate& e = estimates.emplace_back(group, job);
      const NamedTensors own = e.sums(fmt::format("{}", estimates.size() - 1));
      tensors.insert(tensors.end(), own.begin(), own.end());
    }
    const nlohmann::json choices = plan_choices(plan);
    if (krylov)
      grow_basis(job, estimates[0], primal, parameters, plan, plan.basis, ledger, {choices, tensors, losses, first});
    for (size_t i = 0; i < estimates.size(); ++i) {
      Estimate& e = estimates[i];
      const int64_t left = options.probes - e.spent;
      e.next = options.rule ? std::min(least_probes, left) : left;
      if (resumed.contains("rounds")) read_round(e, resumed.at("rounds").at(i));
    }
    do {
      const bool first_round = !krylov && estimates[0].probes == 0;
      nlohmann::json note = krylov ? basis_note(estimates[0]) : nlohmann::json::object();
      note.update({{"joint", joint}, {"pilot", pilot}, {"rounds", nlohmann::json::array()}});
      NamedTensors fixed;
      if (krylov) fixed.emplace_back("q", estimates[0].deflation->rows());
      int64_t steps = 0;
      for (const Estimate& e : estimates) {
        note["rounds"].push_back(round_note(e));
        steps += chunks_of(e.next, plan.directions);
      }
      ledger.begin({choices, note, steps, tensors, fixed});
      for (int64_t s = 0; s < job.b(); ++s)
        for (Estimate& e : estimates)
          for_chunks(job, e.group, primal, parameters, ledger, first_round ? losses : Tensor(), s, e.next,
                     plan.directions, [&](const TangentPass& pass, int64_t place, int64_t k, int64_t count) {
                       if (k == 0) e.begin_visit(s);
                       const WindowSamples samples = draw(job, pass, e.group.selection, s, place, e.probes + k, count,
                                                          plan, e.deflation ? &*e.deflation : nullptr);
                       require_finite(samples.z, windows.index[static_cast<size_t>(s)]);
                       if (first_round && s == 0 && k == 0 && &e == estimates.data())
                         first.copy_(samples.z.narrow(0, 0, first.size(0)));
                       e.add(samples);
                       if (!on_samples) return;
                       const Tensor z = samples.z.cpu();
                       for (size_t i = 0; i < e.group.tensors.size(); ++i) {
                         const SelectedPart& part = e.group.selection.parts()[i];
                         on_samples(e.group.tensors[i], s, e.probes + k, z.narrow(1, part.begin, part.size));
                       }
                     });
    } while (plan_round(job, estimates, ledger));
    ledger.finish();
    for (const Estimate& e : estimates) take(job, e, result.tensors);
    result.products = ledger.products();
    result.loss = mean_loss(losses, windows);
  }
  result.seconds = ledger.seconds();
  if (plan.measure_precision) {
    ledger.stop_here();
    const Tensor exact = repeat_in_double(job, groups[0], first.size(0), plan.check_form);
    result.precision_error = (first - exact).norm().item<double>() / exact.norm().item<double>();
  }
  result.peak_memory = memory.peak();
  result.device = options.device_names();
  result.precision =
      fmt::format("{} tangents, {} primal", precision_name(plan.precision, plan.products), precision_name(plan.primal));
  result.notes["probe_scope"] = joint ? "joint" : "layer";
  result.notes["plan"] = plan_json(plan);
  return result;
}

}  // namespace hesper
