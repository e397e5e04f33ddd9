#include "run/quadratic_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "checkpoint/safetensors.h"
#include "files/atomic_file.h"
#include "report/bars.h"
#include "report/curves.h"
#include "report/heat_map.h"
#include "report/json_number.h"
#include "report/pt_file.h"
#include "report/record.h"
#include "run/configuration.h"
#include "run/exact_files.h"
#include "run/rank_files.h"
#include "run/result_files.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kNamedPairs = 10;
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

double at_or_nan(const Tensor& t, int64_t i) { return t.defined() ? t[i].item<double>() : kNone; }
std::vector<double> to_vector(const Tensor& t) {
  const Tensor flat = t.to(at::kCPU, at::kDouble).contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}
std::vector<double> errors_of(const WithError& x) {
  return x.standard_error.defined() ? to_vector(x.standard_error) : std::vector<double>{};
}
std::string cell(double value) { return std::isfinite(value) ? fmt::format("{:.9g}", value) : ""; }

std::string title(const QuadraticJob& job, const char* what) {
  return fmt::format("{}: {} to {}, {} directions by {}, b = {}, T = {}", what, job.model_name, job.against,
                     job.directions.count(), job.group, job.windows.ids.size(0), job.windows.ids.size(1));
}

/// A label a direction, the block's for runs of one block when there are many.
std::vector<std::string> group_labels(const NamedDirections& d) {
  std::vector<std::string> out;
  for (int64_t k = 0; k < d.count(); ++k) {
    const auto i = static_cast<size_t>(k);
    out.push_back(d.count() > 40 && d.blocks[i] >= 0 ? fmt::format("block {}", d.blocks[i]) : d.names[i]);
  }
  return out;
}

HeatMap picture(const QuadraticJob& job, const QuadraticResult& result) {
  HeatMap map{.values = result.hessian.mean, .title = title(job, "|d_i' H d_j| / 2")};
  const std::vector<std::string> labels = group_labels(job.directions);
  for (int64_t begin = 0, end = 0; begin < job.directions.count(); begin = end) {
    while (end < job.directions.count() && labels[static_cast<size_t>(end)] == labels[static_cast<size_t>(begin)])
      ++end;
    map.groups.push_back({labels[static_cast<size_t>(begin)], begin, end});
  }
  return map;
}

BarPlot bars(const QuadraticJob& job, const QuadraticResult& result) {
  BarPlot plot;
  plot.title = title(job, "Change of the mean loss");
  plot.y_label = "nats a token";
  plot.names = job.directions.names;
  plot.groups = group_labels(job.directions);
  plot.values = to_vector(result.predicted_each.mean);
  plot.errors = errors_of(result.predicted_each);
  plot.value_name = "predicted, each direction alone";
  if (result.actual_each) plot.marks = to_vector(result.actual_each->mean), plot.mark_name = "actual";
  for (const Pair& p : largest_pairs(result, 5))
    plot.notes.push_back(fmt::format("{} with {}: {:+.3g}{}", job.directions.names[static_cast<size_t>(p.i)],
                                     job.directions.names[static_cast<size_t>(p.j)], p.change,
                                     std::isfinite(p.error) ? fmt::format(" +- {:.1g}", p.error) : ""));
  if (!plot.notes.empty()) plot.notes.insert(plot.notes.begin(), "Largest interactions of two directions:");
  return plot;
}

/// The parabola of the second order from e = 0 on, with its bars at the steps, and the measured losses.
CurvePlot line_picture(const QuadraticJob& job, const QuadraticResult& r) {
  constexpr int points = 64;
  std::map<double, double> at;  // e -> error of the prediction there, known at the steps
  for (int i = 0; i <= points; ++i) at[r.line.back().e * i / points] = kNone;
  Series predicted{.name = "second order", .x = {}, .y = {}, .markers = false};
  Series actual{.name = "measured", .x = {0}, .y = {0}, .error = {kNone}};
  for (const LineStep& s : r.line) {
    at[s.e] = s.predicted_error;
    actual.x.push_back(s.e), actual.y.push_back(s.actual), actual.error.push_back(s.actual_error);
  }
  const double first = r.line_first.mean.item<double>(), second = r.line_second.mean.item<double>();
  for (const auto& [e, error] : at)
    predicted.x.push_back(e), predicted.y.push_back(e * first + e * e * second), predicted.error.push_back(error);
  return {.title = title(job, "Change of the mean loss along the whole step"),
          .x_label = "part of the step",
          .y_label = "nats a token",
          .series = {predicted, actual}};
}

void write_csv(std::ostream& out, const QuadraticJob& job, const QuadraticResult& r) {
  out << "direction,block,weights,norm";
  for (const char* name : {"first_order", "gauss_newton", "residual", "second_order", "predicted", "actual"})
    out << ',' << name << ',' << name << "_error";
  out << '\n';
  const auto diagonal = [](const WithError& x) {
    return WithError{x.mean.diagonal(), x.standard_error.defined() ? x.standard_error.diagonal() : Tensor()};
  };
  const WithError none;
  const WithError columns[] = {r.gradient,          diagonal(r.gauss_newton), diagonal(r.residual),
                               diagonal(r.hessian), r.predicted_each,         r.actual_each ? *r.actual_each : none};
  for (int64_t k = 0; k < job.directions.count(); ++k) {
    const auto i = static_cast<size_t>(k);
    out << job.directions.names[i] << ',' << job.directions.blocks[i] << ',' << job.directions.weights[i] << ','
        << cell(job.directions.norms[i]);
    for (const WithError& column : columns)
      out << ',' << cell(at_or_nan(column.mean, k)) << ',' << cell(at_or_nan(column.standard_error, k));
    out << '\n';
  }
}

void write_aux(const fs::path& base, const QuadraticJob& job, const QuadraticResult& r) {
  std::vector<std::pair<std::string, Tensor>> tensors = {{"gradient", r.gradient.mean},
                                                         {"gauss_newton", r.gauss_newton.mean},
                                                         {"residual", r.residual.mean},
                                                         {"losses", r.losses},
                                                         {"windows", at::tensor(job.windows.index, at::kLong)}};
  const auto error = [&](const char* name, const WithError& x) {
    if (x.standard_error.defined()) tensors.emplace_back(std::string(name) + ".standard_error", x.standard_error);
  };
  error("gradient", r.gradient), error("gauss_newton", r.gauss_newton), error("residual", r.residual);
  error("hessian", r.hessian);
  write_safetensors(with_extension(base, ".aux.safetensors").string(), tensors,
                    {{"directions", json(job.directions.names).dump()}});
}

json line_json(const QuadraticResult& r) {
  json out = json::array();
  for (const LineStep& s : r.line)
    out.push_back({{"e", s.e},
                   {"predicted", json_number(s.predicted)},
                   {"predicted_error", json_number(s.predicted_error)},
                   {"actual", json_number(s.actual)},
                   {"actual_error", json_number(s.actual_error)},
                   {"difference_error", json_number(s.difference_error)},
                   {"predicted_perplexity", json_number(std::exp(r.mean_loss + s.predicted))},
                   {"actual_perplexity", json_number(std::exp(r.mean_loss + s.actual))}});
  return out;
}

json record(const QuadraticJob& job, const QuadraticResult& r) {
  const RunRecord record =
      new_record(job,
                 {r.loss, job.directions.count() * job.windows.ids.size(0), r.seconds, job.options.device.str(),
                  fmt::format("{} tangents, {} primal", precision_name(job.options.precision),
                              precision_name(*job.options.primal)),
                  r.peak_memory, std::nullopt},
                 configuration(job));
  json out = to_json(record);
  out.erase("selection"), out.erase("gradient_norm");
  out["against"] = job.against;
  out["directions"] = job.directions.names;
  out["mean_window_loss"] = r.mean_loss;
  out["line"] = line_json(r);
  json pairs = json::array();
  for (const Pair& p : largest_pairs(r, kNamedPairs))
    pairs.push_back({{"i", job.directions.names[static_cast<size_t>(p.i)]},
                     {"j", job.directions.names[static_cast<size_t>(p.j)]},
                     {"change", json_number(p.change)},
                     {"error", json_number(p.error)}});
  out["largest_pairs"] = pairs;
  if (!r.ranking.empty()) out["rank"] = rank_json(r.ranking);
  return out;
}

}  // namespace

std::string quadratic_name(const QuadraticJob& job) {
  const int64_t seqlen = job.windows.ids.size(1);
  return fmt::format("quadratic_{}_{}_b{}{}", job.against, job.group, job.windows.ids.size(0),
                     seqlen == 2048 ? "" : fmt::format("_T{}", seqlen));
}

json configuration(const QuadraticJob& job) {
  return {{"model_sha256", job.model_sha256},
          {"against_sha256", job.against_sha256},
          {"group", job.group},
          {"ids_sha256", ids_sha256(job.windows.ids)},
          {"labels_sha256", ids_sha256(job.windows.labels)},
          {"windows", job.windows.index},
          {"precision", precision_name(job.options.precision)},
          {"primal_precision", precision_name(*job.options.primal)},
          {"steps", job.options.steps},
          {"actual_each", job.options.actual_each},
          {"rank", job.options.rank}};
}

fs::path snapshot_file(const fs::path& folder, const QuadraticJob& job) {
  return with_extension(folder / quadratic_name(job), ".snapshot");
}

void check_existing(const fs::path& folder, const QuadraticJob& job) {
  check_configuration(with_extension(folder / quadratic_name(job), ".json"), configuration(job));
}

std::vector<Pair> largest_pairs(const QuadraticResult& result, int64_t most) {
  const int64_t k = result.hessian.mean.size(0);
  const Tensor places = at::triu_indices(k, k, 1, at::kLong), rows = places[0], cols = places[1];
  const Tensor change = 2 * result.hessian.mean.index({rows, cols});  // symmetric: q_ij = q_ji
  const int64_t count = std::min(most, change.numel());
  const Tensor order = std::get<1>(change.abs().topk(count));
  std::vector<Pair> out;
  for (int64_t n = 0; n < count; ++n) {
    const int64_t at = order[n].item<int64_t>(), i = rows[at].item<int64_t>(), j = cols[at].item<int64_t>();
    const Tensor& error = result.hessian.standard_error;
    out.push_back({i, j, change[at].item<double>(), error.defined() ? 2 * error[i][j].item<double>() : kNone});
  }
  return out;
}

std::string write_quadratic(const fs::path& folder, const QuadraticJob& job, const QuadraticResult& result) {
  const fs::path base = folder / quadratic_name(job);
  std::error_code ignored;
  fs::remove(with_extension(base, ".json"), ignored);
  write_pt(with_extension(base, ".pt"), result.hessian.mean);
  write_aux(base, job, result);
  write_file_atomically(with_extension(base, ".csv"), [&](std::ostream& out) { write_csv(out, job, result); });
  for (const char* extension : {".pdf", ".png"}) {
    write_heat_map(picture(job, result), with_extension(base, extension));
    write_bars(bars(job, result), base.string() + ".bars" + extension);
    if (!result.line.empty()) write_curves(line_picture(job, result), base.string() + ".line" + extension);
    if (!result.ranking.empty())
      write_scatter(rank_picture(title(job, "Directions by place, and Spearman's correlation with the actual cost"),
                                 result.ranking),
                    base.string() + ".rank" + extension);
  }
  if (!result.ranking.empty())
    write_file_atomically(with_extension(base, ".rank.csv"),
                          [&](std::ostream& out) { write_rank_csv(out, job.directions.names, result.ranking); });
  write_json(with_extension(base, ".json"), record(job, result));
  return base.string();
}

}  // namespace hesper
