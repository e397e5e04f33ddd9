#include "run/diagonal_files.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "checkpoint/safetensors.h"
#include "report/heat_map.h"
#include "report/json_number.h"
#include "report/names.h"
#include "report/pt_file.h"
#include "report/record.h"
#include "run/configuration.h"
#include "run/diagonal_csv.h"
#include "run/diagonal_overview.h"
#include "run/result_files.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const char* const kFolder = "diag_hessian";
constexpr int64_t most_writers = 16;  // tensors drawn at a time: some 50 MB each

bool is_whole(const DiagonalJob& job, size_t i) { return job.selection.selection.parts()[i].whole; }

std::string run_name(const DiagonalJob& job) {
  std::string name = fmt::format("{}_b{}_seed{}", job.method, job.windows.ids.size(0), job.seed);
  if (job.windows.ids.size(1) != 2048) name += fmt::format("_T{}", job.windows.ids.size(1));
  return name;
}

std::string selection_suffix(const DiagonalJob& job) {
  return fmt::format("_sel{}", selection_sha256(job.selection).substr(0, 8));
}

std::string title_of(const DiagonalJob& job, size_t i) {
  const SelectedTensor& tensor = job.selection.tensors[i];
  return fmt::format("{}: {}, {}{}, b = {}, T = {}", job.title, job.model_name, tensor.layer,
                     tensor.block < 0 ? "" : fmt::format(" of block {}", tensor.block), job.windows.ids.size(0),
                     job.windows.ids.size(1));
}

at::Tensor shaped(const DiagonalJob& job, size_t i, const at::Tensor& flat) {
  return flat.view(job.sums[i].shape()).to(job.double_precision ? at::kDouble : at::kFloat);
}

void write_picture(const fs::path& base, const DiagonalJob& job, const DiagonalResult& result, size_t i) {
  write_pt(with_extension(base, ".pt"), shaped(job, i, result.tensors[i].entries.mean));
  const HeatMap map{.values = shaped(job, i, result.tensors[i].entries.mean), .title = title_of(job, i)};
  write_heat_map(map, with_extension(base, ".pdf"));
  write_heat_map(map, with_extension(base, ".png"));
}

void write_tensors(const fs::path& base, const DiagonalJob& job, const DiagonalResult& result) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (size_t i = 0; i < result.tensors.size(); ++i) {
    const std::string& name = job.selection.tensors[i].name;
    tensors.emplace_back(name, shaped(job, i, result.tensors[i].entries.mean));
    if (!job.full_errors) continue;
    const EntryErrors errors = entry_errors(result.tensors[i].entries);
    if (errors.probe.defined()) tensors.emplace_back(name + ".stderr_probe", shaped(job, i, errors.probe));
    if (errors.data.defined()) tensors.emplace_back(name + ".stderr_data", shaped(job, i, errors.data));
  }
  write_safetensors(with_extension(base, ".safetensors").string(), tensors, {{"what", job.title}});
}

json bar_json(const Bar& bar) { return bar.known() ? json_number(bar.value) : json(to_string(bar.state)); }

json selected_json(const DiagonalJob& job, size_t i) {
  const SelectedTensor& tensor = job.selection.tensors[i];
  const SelectedPart& part = job.selection.selection.parts()[i];
  json out = {{"tensor", tensor.name}, {"shape", tensor.shape}, {"count", part.size}};
  if (part.whole) {
    out["entries"] = "all";
  } else if (is_rectangle(part, tensor.shape)) {
    out["rows"] = std::vector<int64_t>(part.rows.const_data_ptr<int64_t>(),
                                       part.rows.const_data_ptr<int64_t>() + part.rows.numel());
    out["columns"] = std::vector<int64_t>(part.cols.const_data_ptr<int64_t>(),
                                          part.cols.const_data_ptr<int64_t>() + part.cols.numel());
  } else {
    out["indices"] = std::vector<int64_t>(part.flat.const_data_ptr<int64_t>(),
                                          part.flat.const_data_ptr<int64_t>() + part.flat.numel());
  }
  return out;
}

json tensor_json(const DiagonalJob& job, const DiagonalResult& result, size_t i) {
  const TensorDiagonal& d = result.tensors[i];
  json errors = {{"diagonal", to_json(relative_bars(d.entries))}};
  for (const auto& [unit, key] : {std::pair{"row", "rows"}, {"column", "columns"}, {"layer", "trace"}})
    if (const SumRun* run = job.sums[i].find(unit))
      errors[key] = to_json(relative_bars(d.sums, run->begin, run->begin + run->count));
  json out = {{"tensor", job.selection.tensors[i].name},
              {"block", job.selection.tensors[i].block},
              {"layer", job.selection.tensors[i].layer},
              {"trace", json_number(d.sums.mean[0].item<double>())},
              {"negative_share", d.entries.mean.lt(0).to(at::kDouble).mean().item<double>()},
              {"relative_errors", errors},
              {"samples_per_window", d.entries.samples},
              {"probe_degrees_of_freedom", d.entries.probe_degrees},
              {"window_groups", d.entries.groups}};
  if (d.entries.probe.defined())
    out["negative_share_beyond_two_probe_bars"] =
        d.entries.mean.lt(d.entries.probe.sqrt().mul(-2)).to(at::kDouble).mean().item<double>();
  out.update(d.notes);
  return out;
}

/// The largest of the tensors' relative errors of the diagonal; nothing where one of them has none.
std::optional<double> worst(const DiagonalResult& result, Bar RelativeBars::*which) {
  double most = 0;
  for (const TensorDiagonal& d : result.tensors) {
    const Bar bar = relative_bars(d.entries).*which;
    if (!bar.known()) return std::nullopt;
    most = std::max(most, bar.value);
  }
  return most;
}

/// What the records of all tensors share.
json shared_record(const DiagonalJob& job, const DiagonalResult& result) {
  RunRecord record = new_record(job, result, configuration(job));
  record.errors.probe = worst(result, &RelativeBars::probe);
  record.errors.data = worst(result, &RelativeBars::data);
  json out = to_json(record);
  out["notes"] = result.notes;
  return out;
}

json record_of(json shared, const DiagonalJob& job, const DiagonalResult& result, size_t begin, size_t end) {
  for (size_t i = begin; i < end; ++i) {
    shared["selection"].push_back(selected_json(job, i));
    shared["tensors"].push_back(tensor_json(job, result, i));
  }
  return shared;
}

/// Paths of all records, that of the whole result last.
std::vector<fs::path> records(const fs::path& folder, const DiagonalJob& job) {
  std::vector<fs::path> out;
  if (job.selection.tensors.size() > 1)
    for (size_t i = 0; i < job.selection.tensors.size(); ++i)
      out.push_back(with_extension(folder / tensor_name(job, i), ".json"));
  out.push_back(with_extension(folder / diagonal_name(job), ".json"));
  return out;
}

}  // namespace

json to_json(const RelativeBars& bars) {
  return {{"norm", json_number(bars.norm)},
          {"debiased_norm", bar_json(bars.debiased_norm)},
          {"probe", bar_json(bars.probe)},
          {"data", bar_json(bars.data)},
          {"total", bar_json(bars.total)}};
}

std::string diagonal_name(const DiagonalJob& job) {
  const auto& tensors = job.selection.tensors;
  if (tensors.size() > 1)
    return fmt::format("{}/hessian_diag_{}_tensors_{}{}", kFolder, tensors.size(), run_name(job),
                       selection_suffix(job));
  const std::string where = tensors[0].block < 0
                                ? file_safe(tensors[0].layer)
                                : fmt::format("{}_block{}", file_safe(tensors[0].layer), tensors[0].block);
  return fmt::format("{}/hessian_diag_{}_{}{}", kFolder, where, run_name(job),
                     is_whole(job, 0) ? "" : selection_suffix(job));
}

std::string tensor_name(const DiagonalJob& job, size_t i) {
  if (job.selection.tensors.size() == 1) return diagonal_name(job);
  const SelectedTensor& tensor = job.selection.tensors[i];
  const std::string layer = file_safe(tensor.layer);
  std::string name = tensor.block < 0 ? fmt::format("{}/{}_{}", kFolder, layer, run_name(job))
                                      : fmt::format("{}/{}/{}_{}", kFolder, tensor.block, layer, run_name(job));
  if (!is_whole(job, i)) name += selection_suffix(job);
  return name;
}

json configuration(const DiagonalJob& job) {
  json out = job.configuration;
  out["model_sha256"] = job.model_sha256;
  out["ids_sha256"] = ids_sha256(job.windows.ids);
  out["labels_sha256"] = ids_sha256(job.windows.labels);
  out["windows"] = job.windows.index;
  out["selection_sha256"] = selection_sha256(job.selection);
  out["errors"] = job.full_errors ? "full" : "summary";
  return out;
}

fs::path snapshot_file(const fs::path& folder, const DiagonalJob& job) {
  return with_extension(folder / diagonal_name(job), ".snapshot");
}

bool diagonal_exists(const fs::path& folder, const DiagonalJob& job) {
  const std::vector<fs::path> paths = records(folder, job);
  return std::any_of(paths.begin(), paths.end(), [](const fs::path& path) { return fs::exists(path); });
}

void check_existing(const fs::path& folder, const DiagonalJob& job) {
  const json now = configuration(job);
  for (const fs::path& path : records(folder, job)) check_configuration(path, now);
}

std::string write_diagonals(const fs::path& folder, const DiagonalJob& job, const DiagonalResult& result) {
  const fs::path base = folder / diagonal_name(job);
  const size_t count = job.selection.tensors.size();
  std::error_code ignored;
  for (const fs::path& path : records(folder, job)) fs::remove(path, ignored);
  const json shared = shared_record(job, result);
  const auto write_one = [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const fs::path one = folder / tensor_name(job, i);
      write_picture(one, job, result, i);
      if (count > 1) write_json(with_extension(one, ".json"), record_of(shared, job, result, i, i + 1));
    }
  };
  const auto tensors = static_cast<int64_t>(count);
  at::parallel_for(0, tensors, std::max<int64_t>(1, tensors / most_writers), write_one);
  if (count > 1) write_overview(base, job, result);
  if (count > 1 || job.full_errors) write_tensors(base, job, result);
  write_sums_csv(with_extension(base, ".csv"), job, result);
  write_json(with_extension(base, ".json"), record_of(shared, job, result, 0, count));
  return base.string();
}

}  // namespace hesper
