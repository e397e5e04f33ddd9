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
  RunForm wide, low;  // fp64: by forms, or where they do not fit by products; fp32: by forms
  int64_t at_once;    // directions of the one product in low's form
};

/// Nothing where one of them does not fit.
std::optional<Trials> fit_trials(PlanRequest r, const Selection& some) {
  r.selection = &some;
  r.windows = 1;
  const int64_t n = some.size();
  Trials t{{Pass::gram, n, false, 1, at::kDouble, at::kDouble}, {Pass::gram, n, false, 1, at::kFloat, at::kDouble}, n};
  if (!fit_form(r, t.wide, r.memory_limit)) {
    t.wide = {Pass::two_pass, check_directions, true, 1, at::kDouble, at::kDouble};
    if (!fit_form(r, t.wide, r.memory_limit)) return std::nullopt;
  }
  if (!fit_form(r, t.low, r.memory_limit)) return std::nullopt;
  const auto fits = [&](RunForm form) {
    const std::vector<TangentPrecision>& all = tangent_precisions(r.device);
    return std::all_of(all.begin(), all.end(), [&](const TangentPrecision& p) {
      form.products = p.products;
      return p.working == at::kDouble || forecast_memory(r, form).total() <= r.memory_limit;
    });
  };
  RunForm product = t.low;
  product.pass = Pass::two_pass, product.recompute = true;
  for (; !fits(product); product.directions = t.at_once) {
    if (t.at_once == 1) return std::nullopt;
    t.at_once = (t.at_once + 1) / 2;
  }
  return fits(t.low) ? std::optional(t) : std::nullopt;
}

Tensor product(const TangentPass& pass, const Selection& some, int64_t begin, int64_t end, at::ScalarType working) {
  return pass.product(Directions::units(some, begin, end, working), 0, Curvature::hessian, true).cpu();
}

Tensor forms(const TangentPass& pass, const Selection& some, at::ScalarType working) {
  const TangentPass::Forms f = pass.second_order(Directions::units(some, 0, some.size(), working), 0);
  return (f.gauss_newton + f.residual).cpu();
}

Tensor in_double(const TangentPass& pass, const Selection& some, const RunForm& form) {
  if (form.pass == Pass::gram) return forms(pass, some, at::kDouble);
  Tensors rows;
  for (int64_t i = 0; i < some.size(); i += form.directions)
    rows.push_back(product(pass, some, i, std::min(i + form.directions, some.size()), at::kDouble));
  return at::cat(rows);
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

  Tensor exact;
  {
    const Parameters parameters = make_parameters(model, program, device, wide);
    const Tape tape = run_primal(program, parameters, there, tokens, at::kDouble, nullptr, wide.spilled);
    exact = in_double(TangentPass(program, parameters, there, tape), there, wide);
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
    for (const Tensor& h :
         {product(pass, there, 0, at_once, precision.working), forms(pass, there, precision.working)}) {
      const Tensor same = exact.narrow(0, 0, h.size(0));
      trials.back().error =
          std::max(trials.back().error, (h - same).norm().item<double>() / same.norm().item<double>());
    }
    if (kMargin * trials.back().error <= accepted) break;
  }
  release_free_memory();
  return trials;
}

}  // namespace hesper
