#include "run/diag_in_turn.h"

#include <fmt/format.h>

#include <algorithm>

#include "run/ledger.h"
#include "run/result_files.h"

namespace hesper {
namespace {

using at::Tensor;
using nlohmann::json;

/// A diagonal as a note and tensors, and back.
json pack(const TensorDiagonal& d, const std::string& name, NamedTensors& tensors) {
  const auto bars = [&](const DiagonalBars& b, const std::string& of) {
    for (const auto& [part, tensor] : {std::pair{"mean", b.mean}, {"probe", b.probe}, {"total", b.total}})
      if (tensor.defined()) tensors.emplace_back(fmt::format("{}.{}.{}", name, of, part), tensor);
    return json{{"windows", b.windows}, {"groups", b.groups}, {"samples", b.samples}, {"degrees", b.probe_degrees}};
  };
  return {{"entries", bars(d.entries, "entries")}, {"sums", bars(d.sums, "sums")}, {"notes", d.notes}};
}

TensorDiagonal unpack(const json& note, const std::string& name, const NamedTensors& tensors) {
  const auto bars = [&](const std::string& of) {
    DiagonalBars b;
    for (const auto& [part, tensor] : {std::pair{"mean", &b.mean}, {"probe", &b.probe}, {"total", &b.total}})
      for (const auto& [own, value] : tensors)
        if (own == fmt::format("{}.{}.{}", name, of, part)) *tensor = value;
    const json& said = note.at(of);
    b.windows = said.at("windows"), b.groups = said.at("groups"), b.samples = said.at("samples");
    b.probe_degrees = said.at("degrees");
    return b;
  };
  return {bars("entries"), bars("sums"), note.at("notes")};
}

/// One tensor by the method chosen, in so many products a window.
DiagonalResult compute_one(const Model& model, const OneTensor& one, const Windows& windows, DiagOptions options,
                           const MethodChoice& choice, const RunControl& control) {
  if (!choice.method) return compute_exact_diag(model, one.selection, one.sums, windows, options, control);
  options.method = *choice.method;
  options.probes = std::max<int64_t>(2, static_cast<int64_t>(static_cast<double>(options.probes) / choice.sample_cost));
  return compute_diag(model, one.selection, one.sums, windows, options, control);
}

}  // namespace

std::vector<OneTensor> one_by_one(const ResolvedSelection& selection, const std::vector<UnitSums>& sums) {
  std::vector<OneTensor> parts;
  for (const ResolvedSelection& part : split_by_tensor(selection)) parts.push_back({part, {sums[parts.size()]}});
  return parts;
}

DiagonalResult compute_in_turn(const Model& model, const ResolvedSelection& selection,
                               const std::vector<UnitSums>& sums, const Windows& windows, const DiagOptions& options,
                               const std::vector<MethodChoice>& choices, const RunControl& control,
                               Snapshots::Before& before) {
  if (options.rule)
    for (size_t i = 0; i < sums.size(); ++i)
      check_rule(*options.rule, sums[i], selection.tensors[i].name, windows.ids.size(0));
  const Plan plan = choices.empty() ? plan_diag(model, selection, sums, windows, options)
                                    : plan_auto_diag(model, selection, sums, windows, options);
  const std::vector<OneTensor> parts = one_by_one(selection, sums);
  json& done = before.note["tensors"];
  DiagonalResult result;
  for (size_t i = 0; i < done.size(); ++i)
    result.tensors.push_back(unpack(done[i], fmt::format("{}", i), before.tensors));
  Progress so_far{0, 0, before.note.value("products", 0.0), before.note.value("seconds", 0.0)};
  std::optional<double> precision_error;
  if (before.note.contains("precision_error")) precision_error = before.note["precision_error"].get<double>();

  for (size_t i = result.tensors.size(); i < parts.size(); ++i) {
    Progress last;
    RunControl inner = control;
    inner.on_progress = [&](const Progress& p) {
      last = p;
      if (control.on_progress)
        control.on_progress({so_far.units + p.units, so_far.done + p.done, so_far.products + p.products,
                             so_far.seconds + p.seconds, p.bar});
    };
    DiagOptions one = options;
    one.measure_precision = options.measure_precision && i == 0;
    MethodChoice by;
    by.method = options.method;
    if (!choices.empty()) by = choices[i];
    inner.more = i + 1 < parts.size();
    DiagonalResult r;
    try {
      r = compute_one(model, parts[i], windows, one, by, inner);
    } catch (const PartDone&) {
      if (!inner.more) throw;
      continue;  // rank 0 has the result
    }
    if (!choices.empty()) r.tensors[0].notes["choice"] = by.record;
    so_far.units += last.done, so_far.done += last.done;
    so_far.products += static_cast<double>(r.products), so_far.seconds += r.seconds;
    if (i == 0) precision_error = r.precision_error;
    result.tensors.push_back(std::move(r.tensors[0]));
    r.tensors.swap(result.tensors);
    r.peak_memory = std::max(r.peak_memory, result.peak_memory);
    result = std::move(r);
    if (i + 1 == parts.size()) break;
    done.push_back(pack(result.tensors[i], fmt::format("{}", i), before.tensors));
    before.note["products"] = so_far.products, before.note["seconds"] = so_far.seconds;
    if (precision_error) before.note["precision_error"] = *precision_error;
  }
  result.precision_error = precision_error;
  result.products = static_cast<int64_t>(so_far.products);
  result.seconds = so_far.seconds;
  result.notes["probe_scope"] = "layer";
  result.notes["plan"] = plan_json(plan);
  return result;
}

}  // namespace hesper
