#include "run/diag_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "hessian/deflation.h"
#include "model/build_program.h"
#include "run/krylov.h"
#include "run/memory.h"

namespace hesper {

std::vector<UnitSums> unit_sums(const Model& model, const ResolvedSelection& selection, int64_t group_size) {
  std::vector<UnitSums> out;
  for (size_t i = 0; i < selection.tensors.size(); ++i) {
    const SelectedPart& part = selection.selection.parts()[i];
    const at::Tensor all = model.weights.values[part.parameter].flatten();
    out.emplace_back(selection.tensors[i], part,
                     (part.whole      ? all
                      : all.is_meta() ? all.narrow(0, 0, part.size)  // a shape alone
                                      : all.index_select(0, part.flat))
                         .to(at::kDouble, false, true),
                     model.config(), group_size);
  }
  return out;
}

std::vector<ProbeGroup> probe_groups(const ResolvedSelection& selection, bool joint, const Program& program) {
  const std::vector<at::Device> devices = program.parameter_devices();
  std::vector<ProbeGroup> groups;
  if (joint) {
    groups.push_back({selection.selection.to(devices), {}});
    for (size_t i = 0; i < selection.tensors.size(); ++i) groups[0].tensors.push_back(i);
    return groups;
  }
  const std::vector<ResolvedSelection> parts = split_by_tensor(selection);
  for (size_t i = 0; i < parts.size(); ++i) groups.push_back({parts[i].selection.to(devices), {i}});
  return groups;
}

PlanRequest diag_request(const Program& program, const Model& model, const Selection& selection,
                         const std::vector<UnitSums>& sums, const Windows& windows, const EngineOptions& options) {
  PlanRequest r = plan_request(program, model, selection, windows, options);
  r.matrices = 0;
  int64_t of_sums = 0;
  for (const UnitSums& s : sums) of_sums += s.size();
  const int64_t n = selection.size(), b = r.windows;
  // The gradient beside each tape, and the indices of entries.
  r.beside += 8 * n * std::min(options.batch, b);
  int64_t largest = 0;
  for (const SelectedPart& part : selection.parts()) {
    r.beside += part.whole ? 0 : 8 * part.size;
    largest = std::max(largest, part.size);
  }
  // On the CPU, which a GPU's plan leaves out: moments of entries and sums; mean, probe and total when they are read;
  // w^2 / 2 of the selection. On a GPU that too, and a chunk's moments of a tensor.
  if (options.device.is_cpu())
    r.beside += DiagonalMoments::bytes(n, b) + DiagonalMoments::bytes(of_sums, b) + 8 * (3 * (n + of_sums) + n);
  else
    r.beside += 8 * n + 8 * 4 * largest;
  return r;
}

namespace {

/// What the deflation of n weights keeps, with the moments that look at it.
int64_t deflation_bytes(const DiagOptions& options, int64_t basis, int64_t n, int64_t windows) {
  const auto element = static_cast<int64_t>(c10::elementSize(options.precision));
  const int64_t block = krylov_block(options.probes), directions = std::max(block, options.directions);
  int64_t bytes = Deflation::bytes(basis, n, element) + Deflation::workspace_bytes(block, directions, n, element);
  if (options.device.is_cpu()) bytes += DiagonalMoments::bytes(n, windows) + 8 * n * (window_groups(windows) + 4);
  return bytes;
}

void check_method(const DiagOptions& o) {
  if (o.method == DiagMethod::split && o.curvature != Curvature::hessian)
    throw std::invalid_argument(fmt::format("--method split: not with --curvature {}",
                                            o.curvature == Curvature::residual ? "residual" : "gauss-newton"));
  if (o.method != DiagMethod::krylov) return;
  if (o.scope != ProbeScope::layer)
    throw std::invalid_argument(
        fmt::format("--method krylov: not with --probe-scope {}, each layer has its own basis", to_string(o.scope)));
  if (o.probes < least_krylov_products)
    throw std::invalid_argument(
        fmt::format("--probes {}: --method krylov needs at least {}", o.probes, least_krylov_products));
}

}  // namespace

GroupPlan plan_groups(const Program& program, const Model& model, const ResolvedSelection& selection,
                      const std::vector<ProbeGroup>& groups, const std::vector<UnitSums>& sums, const Windows& windows,
                      const DiagOptions& options) {
  check_method(options);
  PlanRequest r = diag_request(program, model, selection.selection, sums, windows, options);
  r.pass = Pass::two_pass;
  if (options.device.is_cpu() && options.method == DiagMethod::split) {  // moments of the two parts
    const int64_t n = selection.selection.size();
    r.beside += 2 * DiagonalMoments::bytes(n, r.windows) + 8 * 3 * n;
  }
  for (const ProbeGroup& group : groups) r.carried = std::max(r.carried, group.selection.size());
  const int64_t probes = options.rule ? std::min<int64_t>(options.probes, 100) : options.probes;
  r.columns = probes * static_cast<int64_t>(groups.size());
  GroupPlan plan;
  if (options.method != DiagMethod::krylov) {
    static_cast<Plan&>(plan) = make_plan(r);
  } else {
    const int64_t beside = r.beside, most = most_basis(options.probes, r.carried);
    const auto with = [&](int64_t basis) {
      r.beside = beside + deflation_bytes(options, basis, r.carried, r.windows);
      return GroupPlan{make_plan(r), basis};
    };
    // The basis takes what the passes leave: as many vectors as fit beside those of the smallest.
    const int64_t least = std::min(most, 2 * krylov_block(options.probes));
    plan = with(least);
    for (int64_t basis = most; basis > least; basis = std::max(least, basis / 2)) {
      GroupPlan larger;
      try {
        larger = with(basis);
      } catch (const std::runtime_error&) {
        continue;
      }
      if (larger.directions < plan.directions || larger.recompute != plan.recompute ||
          larger.streamed != plan.streamed || larger.spilled != plan.spilled ||
          larger.measure_precision != plan.measure_precision)
        continue;
      plan = larger;
      break;
    }
  }
  plan.directions = std::min(plan.directions, probes);
  plan.units = r.windows * static_cast<int64_t>(groups.size()) * ((probes + plan.directions - 1) / plan.directions);
  return plan;
}

Plan plan_diag(const Model& model, const ResolvedSelection& selection, const std::vector<UnitSums>& sums,
               const Windows& windows, const DiagOptions& options) {
  const int64_t tokens = windows.ids.size(1);
  // The groups stay on the host: a plan sends nothing to its devices.
  const Program program = build_program(model.config(), tokens, options.devices(), options.absent),
                host = build_program(model.config(), tokens);
  return plan_groups(program, model, selection, probe_groups(selection, options.scope != ProbeScope::layer, host), sums,
                     windows, options);
}

}  // namespace hesper
