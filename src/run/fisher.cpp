#include "run/fisher.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>

#include "model/build_program.h"
#include "run/diag_plan.h"
#include "run/exact_files.h"
#include "run/ledger.h"
#include "run/memory.h"
#include "run/primal_batches.h"
#include "run/result_files.h"
#include "run/streamed_weights.h"
#include "run/tensor_moments.h"

namespace hesper {
namespace {

using at::Tensor;
Plan plan_of(const Program& program, const Model& model, const Selection& selection, const std::vector<UnitSums>& sums,
             const Windows& windows, const FisherOptions& o) {
  PlanRequest r = diag_request(program, model, selection, sums, windows, o);
  r.pass = is_sampled(o.kind) ? Pass::adjoint : Pass::primal;
  r.columns = is_sampled(o.kind) ? o.probes : 1;
  if (o.kind == FisherKind::input_gram && o.device.is_cpu())  // where they are kept
    for (const SelectedPart& part : selection.parts()) r.beside += part.columns * part.columns * 8;
  Plan plan = make_plan(r);
  if (!is_sampled(o.kind)) plan.directions = 1;
  if (o.kind == FisherKind::batch && plan.measure_precision) {  // a whole batch is repeated
    plan.check_form.batch = plan.batch;
    const std::optional<Memory> memory = fit_form(r, plan.check_form, plan.limit);
    plan.measure_precision = memory.has_value();
    plan.check = memory.value_or(Memory{});
  }
  return plan;
}

const char* definition(FisherKind kind) {
  switch (kind) {
    case FisherKind::batch:
      return "mean over batches of the squared gradient of the batch's loss; depends on model_input_bs";
    case FisherKind::sequence:
      return "mean over windows of the squared gradient of the window's loss";
    case FisherKind::token:
      return "mean over tokens of the squared gradient of the token's loss (empirical Fisher)";
    case FisherKind::gauss_newton:
      return "diagonal of the Gauss-Newton matrix, the Fisher matrix under the model's own distribution";
    default:
      return "diagonal of X^T X / T of the layer's input X (T, in), the same for every row; GPTQ's code keeps 2T times "
             "it";
  }
}

/// The first windows of a run.
Windows first_of(const Windows& w, int64_t count) {
  return {
      w.ids.narrow(0, 0, count), w.labels.narrow(0, 0, count), {w.index.begin(), w.index.begin() + count}, w.available};
}

}  // namespace

Plan plan_fisher(const Model& model, const ResolvedSelection& selection, const std::vector<UnitSums>& sums,
                 const Windows& windows, const FisherOptions& options) {
  const Program program = build_program(model.config(), windows.ids.size(1), options.devices());
  if (options.kind == FisherKind::input_gram) linear_layers_of(program, selection.selection);
  return plan_of(program, model, selection.selection, sums, windows, options);
}

FisherResult compute_fisher(const Model& model, const ResolvedSelection& chosen, const std::vector<UnitSums>& sums,
                            const Windows& windows, const FisherOptions& given, const RunControl& control) {
  const at::NoGradGuard no_grad;
  const FisherOptions options = resumed_options(given, control);
  const PeakMemory memory(options.devices());
  const Program program = build_program(model.config(), windows.ids.size(1), options.devices());
  const Selection &selection = chosen.selection, here = selection.to(program.parameter_devices());
  const Plan plan = plan_of(program, model, selection, sums, windows, options);
  const bool sampled = is_sampled(options.kind);
  const auto sampler = [&](const Parameters& parameters, const Windows& of, int64_t probes, RunForm form) {
    form.directions = std::min(form.directions, probes);
    return FisherSampler{program, parameters, here, of, options.kind, options.draw, options.seed, probes, form};
  };
  FisherResult result;
  DiagonalResult& out = result.diagonal;
  const int64_t b = windows.ids.size(0), n = selection.size();
  // Samples to repeat in fp64.
  const Tensor first =
      at::zeros({sampled ? std::min({check_directions, plan.directions, options.probes}) : 1, n}, at::kDouble);
  {
    const Parameters parameters = make_parameters(model, program, options.device, plan);
    const FisherSampler run = sampler(parameters, windows, options.probes, plan);
    TensorMoments moments(selection, all_of(sums), run.units(), sampled ? Samples::random : Samples::exact);
    const Tensor losses = at::zeros({b}, at::kDouble);
    NamedTensors tensors = moments.all_sums("0");
    tensors.insert(tensors.end(), {{"losses", losses}, {"first", first}});
    if (options.kind == FisherKind::input_gram)
      for (const SelectedPart& part : selection.parts()) {
        result.grams.push_back(at::zeros({part.columns, part.columns}, at::kDouble));
        tensors.emplace_back(fmt::format("gram.{}", result.grams.size() - 1), result.grams.back());
      }
    Ledger ledger(control, run.units(), options.kind == FisherKind::batch ? 1 : plan.batch);
    ledger.begin({plan_choices(plan), {}, run.steps(), tensors});
    run.run([&](int64_t unit) { return ledger.next(unit); },
            [&](int64_t unit, const Tensor& z, const Tensor& of_windows) {
              const int64_t window = options.kind == FisherKind::batch ? unit * plan.batch : unit;
              require_finite(z, windows.index[static_cast<size_t>(window)]);
              if (ledger.is_first(unit)) {
                losses.narrow(0, window, of_windows.numel()).copy_(of_windows);
                moments.begin_visit(unit);
                if (unit == 0) first.copy_(z.narrow(0, 0, first.size(0)));
              }
              moments.add(z);
              ledger.end(unit, static_cast<double>(z.size(0)));
            },
            result.grams.empty() ? nullptr : &result.grams);
    ledger.finish();
    out.products = ledger.products();
    out.seconds = ledger.seconds();
    out.loss = mean_loss(losses, windows);
    if (plan.measure_precision) ledger.stop_here();
    for (size_t i = 0; i < sums.size(); ++i)
      out.tensors.push_back({moments.entries[i].bars(), moments.sums[i].bars(), nlohmann::json::object()});
  }
  if (plan.measure_precision) {
    const Parameters parameters = make_parameters(model, program, options.device, plan.check_form);
    const Windows some = first_of(windows, options.kind == FisherKind::batch ? plan.batch : 1);
    Tensor exact;
    sampler(parameters, some, first.size(0), plan.check_form)
        .run([](int64_t) { return true; }, [&](int64_t, const Tensor& z, const Tensor&) { exact = z.cpu(); });
    out.precision_error = (first - exact).norm().item<double>() / exact.norm().item<double>();
  }
  out.peak_memory = memory.peak();
  out.device = options.device_names();
  out.precision = sampled ? fmt::format("{} adjoints, {} primal", precision_name(plan.precision, plan.products),
                                        precision_name(plan.primal))
                          : fmt::format("{} primal", precision_name(plan.primal));
  out.notes["definition"] = definition(options.kind);
  if (options.kind == FisherKind::batch) {
    const int64_t batches = (b + plan.batch - 1) / plan.batch;
    out.notes["batches"] = batches;
    out.notes["windows_of_last_batch"] = b - (batches - 1) * plan.batch;
  }
  out.notes["plan"] = plan_json(plan);
  return result;
}

}  // namespace hesper
