#include "run/sweep_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "files/atomic_file.h"
#include "report/curves.h"
#include "report/json_number.h"
#include "report/record.h"
#include "run/configuration.h"
#include "run/exact_files.h"
#include "run/result_files.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const char* thing_of(const SweepJob& job) { return job.over == SweepOver::windows ? "b" : "probes"; }
const ExactOptions* block_of(const SweepJob& job) { return std::get_if<ExactOptions>(&job.quantity); }
const DiagSweep& diagonal_of(const SweepJob& job) { return std::get<DiagSweep>(job.quantity); }
const EngineOptions& engine_of(const SweepJob& job) {
  return block_of(job) ? static_cast<const EngineOptions&>(*block_of(job)) : diagonal_of(job).options;
}
Curvature curvature_of(const SweepJob& job) {
  return block_of(job) ? block_of(job)->curvatures[0] : diagonal_of(job).options.curvature;
}

/// Where the whole result would be.
fs::path result_of(const SweepJob& job) {
  if (const ExactOptions* options = block_of(job)) {
    ExactJob exact;
    exact.windows = job.windows;
    exact.selection = job.selection;
    exact.linear_layers = job.linear_layers;
    exact.options = *options;
    exact.seed = job.seed;
    return exact_name(exact, options->curvatures[0]);
  }
  const DiagSweep& sweep = diagonal_of(job);
  DiagonalJob diagonal;
  diagonal.windows = job.windows;
  diagonal.selection = job.selection;
  diagonal.seed = job.seed;
  diagonal.method = sweep.exact ? "exact" : fmt::format("vhp_samples{}", sweep.options.probes);
  if (sweep.options.method != DiagMethod::hutchinson)
    diagonal.method += fmt::format("_{}", to_string(sweep.options.method));
  if (sweep.options.curvature != Curvature::hessian)
    diagonal.method += fmt::format("_{}", to_string(sweep.options.curvature));
  return diagonal_name(diagonal);
}

std::string title_of(const SweepJob& job) {
  const auto& tensors = job.selection.tensors;
  const Curvature kind = curvature_of(job);
  const std::string where = tensors.size() > 1     ? fmt::format("{} tensors", tensors.size())
                            : tensors[0].block < 0 ? tensors[0].layer
                                                   : fmt::format("{} of block {}", tensors[0].layer, tensors[0].block);
  const std::string what = fmt::format("{} {}",
                                       kind == Curvature::hessian        ? "Hessian"
                                       : kind == Curvature::gauss_newton ? "Gauss-Newton"
                                                                         : "Residual",
                                       block_of(job) ? "block" : "diagonal");
  std::string settings = fmt::format("n = {}, T = {}", job.selection.selection.size(), job.windows.ids.size(1));
  if (job.over == SweepOver::probes) settings += fmt::format(", b = {}", job.windows.ids.size(0));
  if (job.over == SweepOver::windows && !block_of(job) && !diagonal_of(job).exact)
    settings += fmt::format(", {} probes a window", diagonal_of(job).options.probes);
  return fmt::format("{} over growing {}: {}, {}, {}", what, thing_of(job), job.model_name, where, settings);
}

CurvePlot picture(const SweepJob& job, const SweepResult& r) {
  CurvePlot plot{.title = title_of(job),
                 .x_label = job.over == SweepOver::windows ? "b, windows" : "K, probes a window",
                 .y_label = "relative l2 error",
                 .log_x = true,
                 .log_y = true,
                 .series = {}};
  for (const SweepColumn& column : r.columns) {
    Series series{column.legend, {r.points.begin(), r.points.end()}, column.values, column.errors};
    for (double& y : series.y)
      if (y <= 0) y = std::numeric_limits<double>::quiet_NaN();  // the last point's distance to itself
    plot.series.push_back(std::move(series));
  }
  return plot;
}

void write_csv(std::ostream& out, const SweepJob& job, const SweepResult& r) {
  const auto cell = [](double value) { return std::isfinite(value) ? fmt::format(",{:.9g}", value) : ","; };
  out << thing_of(job);
  for (const SweepColumn& column : r.columns)
    out << ',' << column.name << (column.errors.empty() ? "" : ',' + column.name + "_standard_error");
  out << '\n';
  for (size_t i = 0; i < r.points.size(); ++i) {
    out << r.points[i];
    for (const SweepColumn& column : r.columns)
      out << cell(column.values[i]) << (column.errors.empty() ? "" : cell(column.errors[i]));
    out << '\n';
  }
}

json column_json(const std::vector<double>& values) {
  json out = json::array();
  for (const double value : values) out.push_back(json_number(value));
  return out;
}

json record(const SweepJob& job, const SweepResult& r) {
  RunRecord record = new_record(job, r, configuration(job));
  json out = to_json(record);
  out.erase("gradient_norm");
  json selected = json::array();
  for (size_t i = 0; i < job.selection.tensors.size(); ++i)
    selected.push_back({{"tensor", job.selection.tensors[i].name},
                        {"shape", job.selection.tensors[i].shape},
                        {"count", job.selection.selection.parts()[i].size}});
  out["selection"] = selected;
  out["norm"] = r.norm;
  out["norm_of"] = r.norm_of;
  out["points"] = r.points;
  for (const SweepColumn& column : r.columns) {
    out["columns"][column.name] = column_json(column.values);
    if (!column.errors.empty()) out["columns"][column.name + "_standard_error"] = column_json(column.errors);
  }
  out["notes"] = r.notes;
  return out;
}

}  // namespace

std::string sweep_name(const SweepJob& job) {
  const fs::path result = result_of(job);
  return (result.parent_path() / fmt::format("sweep_{}_{}", thing_of(job), result.filename().string())).string();
}

bool sweep_exists(const fs::path& folder, const SweepJob& job) {
  return fs::exists(with_extension(folder / sweep_name(job), ".json"));
}

json configuration(const SweepJob& job) {
  const EngineOptions& engine = engine_of(job);
  json out = {{"model_sha256", job.model_sha256},
              {"ids_sha256", ids_sha256(job.windows.ids)},
              {"labels_sha256", ids_sha256(job.windows.labels)},
              {"windows", job.windows.index},
              {"selection_sha256", selection_sha256(job.selection)},
              {"over", thing_of(job)},
              {"of", block_of(job) ? "exact" : "diag"},
              {"curvature", to_string(curvature_of(job))},
              {"precision", precision_name(engine.precision, engine.products)},
              {"primal_precision", engine.primal ? precision_name(*engine.primal) : "auto"}};
  if (block_of(job)) return out;
  const DiagSweep& sweep = diagonal_of(job);
  out["method"] = sweep.exact ? "exact" : to_string(sweep.options.method);
  out["truth_sha256"] = sweep.truth ? json(selection_sha256(*sweep.truth)) : json();
  if (sweep.exact) return out;
  out["probes"] = sweep.options.probes;
  out["seed"] = sweep.options.seed;
  return out;
}

fs::path snapshot_file(const fs::path& folder, const SweepJob& job) {
  return with_extension(folder / sweep_name(job), ".snapshot");
}

void check_existing(const fs::path& folder, const SweepJob& job) {
  check_configuration(with_extension(folder / sweep_name(job), ".json"), configuration(job));
}

std::string write_sweep(const fs::path& folder, const SweepJob& job, const SweepResult& result) {
  const fs::path base = folder / sweep_name(job);
  std::error_code ignored;
  fs::remove(with_extension(base, ".json"), ignored);
  write_curves(picture(job, result), base);
  write_file_atomically(with_extension(base, ".csv"), [&](std::ostream& out) { write_csv(out, job, result); });
  write_json(with_extension(base, ".json"), record(job, result));
  return base.string();
}

}  // namespace hesper
