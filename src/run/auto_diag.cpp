// --method auto: the pilot, and each tensor's run.
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "model/build_program.h"
#include "run/clock.h"
#include "run/exact_files.h"
#include "run/krylov.h"
#include "run/method_choice.h"
#include "run/result_files.h"

namespace hesper {
namespace {

using at::Tensor;
// The pilot's basis: two blocks of 16, so that its decay can be seen. Products that krylov_block answers with 16.
constexpr int64_t kPilotBlock = 16, kPilotProducts = 16 * kPilotBlock;

/// The first window alone.
Windows first_of(const Windows& w) {
  return {w.ids.narrow(0, 0, 1), w.labels.narrow(0, 0, 1), {w.index[0]}, w.available};
}

/// One tensor of a run.
struct One {
  ResolvedSelection selection;
  std::vector<UnitSums> sums;
};

class Pilot {
 public:
  Pilot(const Model& model, const Windows& windows, const DiagOptions& options, const OnChunk& on_chunk)
      : model_(model),
        windows_(windows.ids.size(0)),
        first_(first_of(windows)),
        options_(options),
        program_(build_program(model.config(), windows.ids.size(1), options.device)),
        parameters_(model.weights.values, options.precision, options.device, options.products),
        on_chunk_(on_chunk) {}

  MethodChoice choose(const One& one, const ExactCost& exact) const {
    MethodPilot p;
    p.windows = windows_;
    const std::vector<ProbeGroup> groups = probe_groups(one.selection, false, options_.device);
    const DiagJob job = job_of(one, DiagMethod::hutchinson, least_probes);
    const Plan plan = plan_groups(program_, model_, one.selection, groups, one.sums, first_, job.options);
    PrimalBatches primal(program_, parameters_, groups[0].selection, first_, 1, plan.primal);
    const double product = direction_flops(job, one.selection.selection);
    p.exact = exact.flops / product;
    p.hutchinson = sample(job, groups[0], primal, plan.directions, nullptr);
    if (options_.curvature == Curvature::hessian) {
      p.split = sample(job_of(one, DiagMethod::split, least_probes), groups[0], primal, plan.directions, nullptr);
      p.split_cost = 1 + direction_flops(job, one.selection.selection, Pass::adjoint) / product;
    }
    if (options_.probes >= 4 * kPilotBlock) {
      const DiagJob krylov = job_of(one, DiagMethod::krylov, kPilotProducts);
      Estimate e(groups[0], krylov);
      grow_basis(krylov, e, primal, parameters_, plan.directions, 2 * kPilotBlock, on_chunk_);
      p.krylov = sample(krylov, groups[0], primal, plan.directions, &e);
      p.basis = e.deflation->size();
      p.block = kPilotBlock;
      if (const auto& v = e.basis["variances"]; v.size() > 1) p.decay = decay(v[0][0], v[0][1], v[1][0], v[1][1]);
    }
    const std::optional<double> goal = options_.rule ? std::optional(options_.rule->rel_error) : std::nullopt;
    return choose_method(p, options_.probes, goal);
  }

 private:
  DiagJob job_of(const One& one, DiagMethod method, int64_t products) const {
    DiagJob job{model_, one.selection, one.sums, first_, options_, program_};
    job.options.method = method;
    job.options.probes = products;
    job.options.rule.reset();
    job.options.batch = 1;
    return job;
  }

  /// Variance and square from a few samples, with e's deflation where there is one.
  Sampled sample(const DiagJob& job, const ProbeGroup& group, PrimalBatches& primal, int64_t directions,
                 const Estimate* e) const {
    TensorMoments moments(group.selection, job.sums_of(group), 1);
    const int64_t first = int64_t{pilot_probes} + (e ? e->spent : 0);
    for_windows(job, group, primal, parameters_, [&](int64_t, const TangentPass& pass, int64_t place) {
      moments.begin_visit(0);
      for (int64_t k = 0; k < least_probes; k += directions) {
        const int64_t count = std::min(directions, least_probes - k);
        const Tensor z = draw(job, pass, group.selection, 0, place, first + k, count, options_.precision,
                              e ? &*e->deflation : nullptr)
                             .z;
        require_finite(z, first_.index[0]);
        moments.add(z);
        on_chunk_(count);
      }
    });
    const StopOf of = options_.rule ? options_.rule->of : StopOf::diagonal;
    const UnitSums& units = *moments.units[0];
    DiagonalBars entries = moments.entries[0].bars(), sums = moments.sums[0].bars();
    double known = 0;
    if (e) {
      const Tensor of_entries = e->all.entries[0].mean_shift(), of_sums = e->all.sums[0].mean_shift();
      entries.mean.add_(of_entries);
      sums.mean.add_(of_sums);
      DiagonalBars alone = entries, alone_sums = sums;
      alone.mean = of_entries, alone_sums.mean = of_sums;
      known = watched_squares(of, alone, alone_sums, units).square;
    }
    const auto [variance, square] = watched_squares(of, entries, sums, units);
    return {variance * static_cast<double>(least_probes), square - variance, known, least_probes};
  }

  const Model& model_;
  int64_t windows_;
  Windows first_;
  const DiagOptions& options_;
  Program program_;
  Parameters parameters_;
  const OnChunk& on_chunk_;
};

/// One tensor by the method chosen, in `products` a window.
DiagonalResult compute_one(const Model& model, const One& one, const Windows& windows, DiagOptions options,
                           const MethodChoice& choice, const OnProgress& on_progress, const ShouldStop& stop) {
  if (!choice.method) return compute_exact_diag(model, one.selection, one.sums, windows, options, on_progress, stop);
  options.method = *choice.method;
  options.probes = std::max<int64_t>(2, static_cast<int64_t>(static_cast<double>(options.probes) / choice.sample_cost));
  return compute_diag(model, one.selection, one.sums, windows, options, on_progress, stop);
}

}  // namespace

Plan plan_auto_diag(const Model& model, const ResolvedSelection& selection, const std::vector<UnitSums>& sums,
                    const Windows& windows, const DiagOptions& options) {
  if (options.scope != ProbeScope::layer)
    throw std::invalid_argument(fmt::format("--method auto: not with --probe-scope {}, each layer has its own method",
                                            to_string(options.scope)));
  std::vector<DiagMethod> methods = {DiagMethod::hutchinson};
  if (options.probes >= least_krylov_products) methods.push_back(DiagMethod::krylov);
  if (options.curvature == Curvature::hessian) methods.push_back(DiagMethod::split);
  std::optional<Plan> largest;
  for (const DiagMethod method : methods) {
    DiagOptions one = options;
    one.method = method;
    const Plan plan = plan_diag(model, selection, sums, windows, one);
    if (!largest || plan.peak() > largest->peak()) largest = plan;
  }
  try {
    const Plan exact = plan_exact_diag(model, selection, sums, windows, options);
    if (exact.peak() > largest->peak()) largest = exact;
  } catch (const std::runtime_error&) {  // does not fit, and will not be chosen
  }
  return *largest;
}

DiagonalResult compute_auto_diag(const Model& model, const ResolvedSelection& selection,
                                 const std::vector<UnitSums>& sums, const Windows& windows, const DiagOptions& options,
                                 const OnProgress& on_progress, const ShouldStop& stop) {
  const at::NoGradGuard no_grad;
  if (options.rule)
    for (size_t i = 0; i < sums.size(); ++i)
      check_rule(*options.rule, sums[i], selection.tensors[i].name, windows.ids.size(0));
  const Plan plan = plan_auto_diag(model, selection, sums, windows, options);
  const Clock::time_point begin = Clock::now();
  Progress before;  // of the pilot and the tensors that are done
  std::vector<One> parts;
  for (const ResolvedSelection& part : split_by_tensor(selection)) parts.push_back({part, {sums[parts.size()]}});
  const std::vector<ExactCost> exact = exact_costs(model, selection, windows, options);

  std::vector<MethodChoice> choices;
  {
    const OnChunk carried = [&](int64_t directions) {
      if (stop && stop()) throw Interrupted();
      before.products += static_cast<double>(directions);
      before.units = ++before.done;
      before.seconds = seconds_since(begin);
      if (on_progress) on_progress(before);
    };
    const Pilot pilot(model, windows, options, carried);
    for (size_t i = 0; i < parts.size(); ++i) choices.push_back(pilot.choose(parts[i], exact[i]));
  }

  DiagonalResult result;
  for (size_t i = 0; i < parts.size(); ++i) {
    Progress last;
    const auto progress = [&](const Progress& p) {
      last = p;
      if (on_progress)
        on_progress(
            {before.units + p.units, before.done + p.done, before.products + p.products, seconds_since(begin), p.bar});
    };
    DiagOptions one = options;
    one.measure_precision = options.measure_precision && i == 0;
    DiagonalResult r = compute_one(model, parts[i], windows, one, choices[i], progress, stop);
    r.tensors[0].notes["choice"] = choices[i].record;
    before.units += last.done, before.done += last.done, before.products += last.products;
    r.tensors.insert(r.tensors.begin(), result.tensors.begin(), result.tensors.end());
    r.peak_memory = std::max(r.peak_memory, result.peak_memory);
    if (i > 0) r.precision_error = result.precision_error;
    result = std::move(r);
  }
  result.products = static_cast<int64_t>(before.products);
  result.seconds = seconds_since(begin);
  result.notes["probe_scope"] = "layer";
  result.notes["plan"] = plan_json(plan);
  return result;
}

}  // namespace hesper
