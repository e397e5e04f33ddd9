#include "run/diag_estimate.h"

#include <fmt/format.h>

#include "hessian/split_samples.h"

namespace hesper {

using at::Tensor;

std::vector<const UnitSums*> DiagJob::sums_of(const ProbeGroup& group) const {
  std::vector<const UnitSums*> out;
  for (const size_t t : group.tensors) out.push_back(&sums[t]);
  return out;
}

WindowSamples draw(const DiagJob& job, const TangentPass& pass, const Selection& selection, int64_t window,
                   int64_t place, int64_t first, int64_t count, const RunForm& form, const Deflation* deflation) {
  const int64_t number = job.windows.index[static_cast<size_t>(window)];
  if (job.options.method == DiagMethod::split) {
    const AdjointStart start{AdjointStart::Kind::factor, job.options.seed, number, first, count};
    const Tensor g = gauss_newton_samples(pass, start, place);
    const Tensor r =
        residual_samples(pass, selection, start, place, form.precision, job.options.device, form.recompute);
    return {g + r, g, r};
  }
  const Tensor v = rademacher(selection, job.options.seed, number, first, count, form.precision, job.options.device);
  const Tensor z = deflation
                       ? deflated_samples(*deflation, pass, selection, v, place, job.options.curvature, form.recompute)
                       : hutchinson_samples(pass, selection, v, place, job.options.curvature, form.recompute);
  return {z, {}, {}};
}

Estimate::Estimate(const ProbeGroup& group, const DiagJob& job)
    : group(group),
      all(group.selection, job.sums_of(group), job.b()),
      deflated(job.options.method == DiagMethod::krylov) {
  if (job.options.method != DiagMethod::split) return;
  for (const SelectedPart& part : group.selection.parts()) {
    gauss_newton.emplace_back(part.size, job.b());
    residual.emplace_back(part.size, job.b());
  }
}

void Estimate::begin_visit(int64_t window) {
  all.begin_visit(window);
  for (auto* moments : {&gauss_newton, &residual})
    for (DiagonalMoments& m : *moments) m.begin_visit(window);
}

void Estimate::add(const WindowSamples& samples) {
  all.add(samples.z);
  if (!samples.residual.defined()) return;
  for (size_t i = 0; i < group.tensors.size(); ++i) {
    const SelectedPart& part = group.selection.parts()[i];
    gauss_newton[i].add(samples.gauss_newton.narrow(1, part.begin, part.size));
    residual[i].add(samples.residual.narrow(1, part.begin, part.size));
  }
}

NamedTensors Estimate::sums(const std::string& name) {
  NamedTensors out = all.all_sums(name, deflated);
  for (size_t i = 0; i < gauss_newton.size(); ++i)
    for (const NamedTensors& part : {gauss_newton[i].sums(fmt::format("{}.{}.gauss_newton", name, i)),
                                     residual[i].sums(fmt::format("{}.{}.residual", name, i))})
      out.insert(out.end(), part.begin(), part.end());
  return out;
}

double direction_flops(const DiagJob& job, const Selection& selection, Pass pass) {
  PlanRequest r = diag_request(job.program, job.model, selection, {}, job.windows, job.options);
  r.pass = pass;
  r.columns = r.windows = 1;
  r.counted = 0;
  r.measure_precision = false;
  return make_plan(r).tangent_flops;
}

}  // namespace hesper
