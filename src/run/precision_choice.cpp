#include "run/precision_choice.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "model/build_program.h"
#include "primal/primal.h"
#include "run/memory.h"
#include "run/streamed_weights.h"
#include "tangent/tangent_pass.h"

namespace hesper {
namespace {

constexpr int64_t kEntries = 16;
// A block of one window says less than a whole run meets (sums over layers and probes: up to four times, measured).
constexpr double kMargin = 4;

/// At most kEntries of the selection, evenly spread.
Selection some_of(const Selection& all, const Model& model) {
  const int64_t n = all.size(), count = std::min(n, kEntries);
  Selection out;
  for (const SelectedPart& part : all.parts()) {
    std::vector<int64_t> entries;
    for (int64_t i = 0; i < count; ++i)
      if (const int64_t at = i * n / count - part.begin; at >= 0 && at < part.size) entries.push_back(at);
    if (entries.empty()) continue;
    const Tensor places = at::tensor(entries, at::kLong);
    out.add(part.parameter, model.weights.specs[part.parameter].shape,
            part.whole ? places : part.flat.index_select(0, places));
  }
  return out;
}

struct Trials {
  RunForm wide, low;  // products in fp64; forms in fp32, by any kind of product
  int64_t at_once;    // directions of a product in low's form
};

/// Nothing where one of them does not fit.
std::optional<Trials> fit_trials(PlanRequest r, const Selection& some) {
  r.selection = &some;
  r.windows = 1;
  Trials t{{Pass::two_pass, check_directions, true, 1, at::kDouble, at::kDouble},
           {Pass::gram, some.size(), false, 1, at::kFloat, at::kDouble},
           some.size()};
  if (!fit_form(r, t.wide, r.memory_limit) || !fit_form(r, t.low, r.memory_limit)) return std::nullopt;
  const auto fits = [&](RunForm form) {
    const std::vector<TangentPrecision>& all = tangent_precisions(r.device);
    return std::all_of(all.begin(), all.end(), [&](const TangentPrecision& p) {
      form.products = p.products;
      return p.working == at::kDouble || forecast_memory(r, form).total() <= r.memory_limit;
    });
  };
  RunForm two_pass = t.low;
  two_pass.pass = Pass::two_pass, two_pass.recompute = true;
  for (; !fits(two_pass); two_pass.directions = t.at_once) {
    if (t.at_once == 1) return std::nullopt;
    t.at_once = (t.at_once + 1) / 2;
  }
  return fits(t.low) ? std::optional(t) : std::nullopt;
}

}  // namespace

const std::vector<TangentPrecision>& tangent_precisions(at::Device device) {
  static const std::vector<TangentPrecision> cpu = {{at::kFloat, Products::full, 2e-6}, {at::kDouble}};
  static const std::vector<TangentPrecision> gpu = {{at::kFloat, Products::bf16, 2e-2},
                                                    {at::kFloat, Products::tf32, 5e-4},
                                                    {at::kFloat, Products::bf16x3, 1e-4},
                                                    {at::kFloat, Products::full, 2e-6},
                                                    {at::kDouble}};
  return device.is_cpu() ? cpu : gpu;
}

TangentPrecision typical_precision(double accepted, at::Device device) {
  const auto& all = tangent_precisions(device);
  return *std::find_if(all.begin(), all.end(), [&](const TangentPrecision& p) { return p.typical <= accepted; });
}

std::vector<PrecisionTrial> try_precisions(const Model& model, const Selection& selection, const Windows& windows,
                                           const EngineOptions& options, double accepted) {
  const at::NoGradGuard no_grad;
  const at::Device device = options.device;
  const Program program = build_program(model.config(), windows.ids.size(1), options.devices());
  const Selection some = some_of(selection, model), there = some.to(program.parameter_devices());
  const PlanRequest request = plan_request(program, model, selection, windows, options);
  const std::optional<Trials> fitting = fit_trials(request, some);
  if (!fitting) return {};
  const auto& [wide, low, at_once] = *fitting;
  const Tokens tokens = make_tokens(windows.ids.narrow(0, 0, 1), windows.labels.narrow(0, 0, 1), device);

  const auto products = [&](const TangentPass& pass, at::ScalarType working, int64_t chunk) {
    Tensors rows;
    for (int64_t i = 0; i < there.size(); i += chunk)
      rows.push_back(pass.product(Directions::units(there, i, std::min(i + chunk, there.size()), working), 0,
                                  Curvature::hessian, true)
                         .cpu());
    return at::cat(rows);
  };
  Tensor exact;
  {
    const Parameters parameters = make_parameters(model, program, device, wide);
    const Tape tape = run_primal(program, parameters, there, tokens, at::kDouble, nullptr, wide.spilled);
    exact = products(TangentPass(program, parameters, there, tape), at::kDouble, check_directions);
  }
  // All but the last work in fp32, over one tape.
  const Parameters once = make_parameters(model, program, device, low);
  const Tape tape = run_primal(program, once, there, tokens, at::kDouble, nullptr, low.spilled);
  std::vector<PrecisionTrial> trials;
  for (const TangentPrecision& precision : tangent_precisions(device)) {
    trials.push_back({precision});
    if (precision.working == at::kDouble) break;
    const Parameters parameters = once.with(precision.products);
    const TangentPass pass(program, parameters, there, tape);
    const auto forms = pass.second_order(Directions::units(there, 0, there.size(), precision.working), 0);
    for (const Tensor& h :
         {products(pass, precision.working, at_once), (forms.gauss_newton + forms.residual).cpu()})
      trials.back().error =
          std::max(trials.back().error, (h - exact).norm().item<double>() / exact.norm().item<double>());
    if (kMargin * trials.back().error <= accepted) break;
  }
  release_free_memory();
  return trials;
}

}  // namespace hesper
