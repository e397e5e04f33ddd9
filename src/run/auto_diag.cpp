// --method auto: the pilot, and each tensor's run.
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "model/build_program.h"
#include "run/diag_in_turn.h"
#include "run/krylov.h"
#include "run/streamed_weights.h"

namespace hesper {
namespace {

using at::Tensor;
// The pilot's basis: two blocks of 16, so that its decay can be seen. Products that krylov_block answers with 16.
constexpr int64_t kPilotBlock = 16, kPilotProducts = 16 * kPilotBlock;

/// The first window alone.
Windows first_of(const Windows& w) {
  return {w.ids.narrow(0, 0, 1), w.labels.narrow(0, 0, 1), {w.index[0]}, w.available};
}

class Pilot {
 public:
  /// plan: of the run by any of the sampling methods.
  Pilot(const Model& model, const Windows& windows, const DiagOptions& options, const Plan& plan,
        const ShouldStop& stop)
      : model_(model),
        windows_(windows.ids.size(0)),
        first_(first_of(windows)),
        options_(options),
        program_(build_program(model.config(), windows.ids.size(1), options.devices())),
        keep_(plan),
        parameters_(make_parameters(model, program_, options.device, plan)),
        control_{.stop = stop} {}

  MethodChoice choose(const OneTensor& one, const ExactCost& exact) {
    MethodPilot p;
    p.windows = windows_;
    const std::vector<ProbeGroup> groups = probe_groups(one.selection, false, program_);
    const DiagJob job = job_of(one, DiagMethod::hutchinson, least_probes);
    RunForm form = plan_groups(program_, model_, one.selection, groups, one.sums, first_, job.options);
    form.spilled = keep_.spilled, form.recompute = keep_.recompute;
    PrimalBatches primal(program_, parameters_, groups[0].selection, first_, form);
    const double product = direction_flops(job, one.selection.selection);
    p.exact = exact.flops / product;
    p.hutchinson = sample(job, groups[0], primal, form, nullptr);
    if (options_.curvature == Curvature::hessian) {
      p.split = sample(job_of(one, DiagMethod::split, least_probes), groups[0], primal, form, nullptr);
      p.split_cost = 1 + direction_flops(job, one.selection.selection, Pass::adjoint) / product;
    }
    if (options_.probes >= 4 * kPilotBlock) {
      const DiagJob krylov = job_of(one, DiagMethod::krylov, kPilotProducts);
      Estimate e(groups[0], krylov);
      Ledger ledger(control_, 1);
      grow_basis(krylov, e, primal, parameters_, form, 2 * kPilotBlock, ledger,
                 {{}, {}, {}, at::zeros({0, one.selection.selection.size()}, at::kDouble)});
      products_ += static_cast<double>(ledger.products());
      p.krylov = sample(krylov, groups[0], primal, form, &e);
      p.basis = e.deflation->size();
      p.block = kPilotBlock;
      if (const auto& v = e.basis["variances"]; v.size() > 1) p.decay = decay(v[0][0], v[0][1], v[1][0], v[1][1]);
    }
    const std::optional<double> goal = options_.rule ? std::optional(options_.rule->rel_error) : std::nullopt;
    return choose_method(p, options_.probes, goal);
  }
  double products() const { return products_; }  // so far

 private:
  DiagJob job_of(const OneTensor& one, DiagMethod method, int64_t products) const {
    DiagJob job{model_, one.selection, one.sums, first_, options_, program_};
    job.options.method = method;
    job.options.probes = products;
    job.options.rule.reset();
    job.options.batch = 1;
    return job;
  }

  /// Variance and square from a few samples, with e's deflation where there is one.
  Sampled sample(const DiagJob& job, const ProbeGroup& group, PrimalBatches& primal, const RunForm& form,
                 const Estimate* e) {
    TensorMoments moments(group.selection, job.sums_of(group), 1);
    const int64_t first = int64_t{pilot_probes} + (e ? e->spent : 0);
    Ledger ledger(control_, 1);
    ledger.begin({{}, {}, chunks_of(least_probes, form.directions), {}});
    moments.begin_visit(0);
    for_chunks(job, group, primal, parameters_, ledger, {}, 0, least_probes, form.directions,
               [&](const TangentPass& pass, int64_t place, int64_t k, int64_t count) {
                 const Tensor z =
                     draw(job, pass, group.selection, 0, place, first + k, count, form, e ? &*e->deflation : nullptr).z;
                 require_finite(z, first_.index[0]);
                 moments.add(z);
               });
    products_ += static_cast<double>(ledger.products());
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
  RunForm keep_;  // how weights and tape are kept
  Parameters parameters_;
  RunControl control_;
  double products_ = 0;
};

nlohmann::json pack(const MethodChoice& c) {
  return {{"method", c.method ? nlohmann::json(static_cast<int>(*c.method)) : nlohmann::json()},
          {"sample_cost", c.sample_cost},
          {"record", c.record}};
}
MethodChoice unpack(const nlohmann::json& note) {
  MethodChoice c;
  c.record = note.at("record");
  if (!note.at("method").is_null()) c.method = static_cast<DiagMethod>(note.at("method").get<int>());
  c.sample_cost = note.at("sample_cost").get<double>();
  return c;
}

}  // namespace

namespace {

/// Of the sampling methods, the largest.
Plan plan_sampling(const Model& model, const ResolvedSelection& selection, const std::vector<UnitSums>& sums,
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
  return *largest;
}

}  // namespace

Plan plan_auto_diag(const Model& model, const ResolvedSelection& selection, const std::vector<UnitSums>& sums,
                    const Windows& windows, const DiagOptions& options) {
  Plan largest = plan_sampling(model, selection, sums, windows, options);
  try {
    const Plan exact = plan_exact_diag(model, selection, sums, windows, options);
    if (exact.peak() > largest.peak()) largest = exact;
  } catch (const std::runtime_error&) {  // does not fit, and will not be chosen
  }
  return largest;
}

DiagonalResult compute_auto_diag(const Model& model, const ResolvedSelection& selection,
                                 const std::vector<UnitSums>& sums, const Windows& windows, const DiagOptions& options,
                                 const RunControl& control) {
  const at::NoGradGuard no_grad;
  if (!control.part.whole())
    throw std::invalid_argument(fmt::format(
        "{}: --method auto decides by a pilot; ranks can share it (hesper launch), parts cannot", control.shared_by()));
  if (options.rule)
    for (size_t i = 0; i < sums.size(); ++i)
      check_rule(*options.rule, sums[i], selection.tensors[i].name, windows.ids.size(0));
  const Clock::time_point begin = Clock::now();
  const std::vector<OneTensor> parts = one_by_one(selection, sums);
  Snapshots* const snapshots = control.snapshots;
  Snapshots::Before none;
  Snapshots::Before& before = snapshots ? snapshots->before : none;
  // Taken in the pilot, a snapshot has choices alone.
  if (snapshots && snapshots->from && snapshots->from->plan.empty()) snapshots->from.reset();

  // Of the tensors whose pilot is over.
  nlohmann::json& said = before.note["choices"];
  const auto finish_pilot = [&]() -> nlohmann::json {
    const double products = before.note.value("products", 0.0), seconds = before.note.value("seconds", 0.0);
    const std::vector<ExactCost> exact = exact_costs(model, selection, windows, options);
    RunState between;
    between.plan = nlohmann::json::object();
    const auto stop = [&] {
      if (!control.stop || !control.stop()) return false;
      if (snapshots && snapshots->save(between)) throw Interrupted(snapshots->file());
      return true;
    };
    Pilot pilot(model, windows, options, plan_sampling(model, selection, sums, windows, options), stop);
    for (size_t i = said.size(); i < parts.size(); ++i) {
      said.push_back(pack(pilot.choose(parts[i], exact[i])));
      before.note["products"] = products + pilot.products();
      before.note["seconds"] = seconds + seconds_since(begin);
      if (snapshots && snapshots->due()) snapshots->save(between);
      const auto tensors = static_cast<int64_t>(i) + 1;
      if (control.on_progress)
        control.on_progress({static_cast<int64_t>(parts.size()), tensors, before.note["products"].get<double>(),
                             before.note["seconds"].get<double>()});
    }
    return said;
  };
  if (said.size() < parts.size()) said = control.decided(finish_pilot);
  std::vector<MethodChoice> choices;
  for (const nlohmann::json& choice : said) choices.push_back(unpack(choice));
  return compute_in_turn(model, selection, sums, windows, options, choices, control, before);
}

}  // namespace hesper
