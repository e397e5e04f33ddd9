#include "run/exact_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "checkpoint/safetensors.h"
#include "report/heat_map.h"
#include "report/names.h"
#include "report/pt_file.h"
#include "report/record.h"
#include "run/configuration.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::vector<int64_t> to_vector(const at::Tensor& indices) {
  const at::Tensor flat = indices.to(at::kCPU, at::kLong).contiguous();
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

// The t of "first t weights of row 0 of every tensor"; nullopt for any other selection.
std::optional<int64_t> first_weights(const ResolvedSelection& selection) {
  const int64_t t = selection.selection.parts().at(0).size;
  for (const SelectedPart& part : selection.selection.parts()) {
    if (part.size != t || t > part.columns || !at::equal(part.entries(), at::arange(t))) return std::nullopt;
  }
  return t;
}

std::string method_name(Curvature curvature) { return curvature == Curvature::hessian ? "" : to_string(curvature); }

std::string description(const ExactJob& job, Curvature curvature) {
  std::string what = curvature == Curvature::hessian        ? "Hessian"
                     : curvature == Curvature::gauss_newton ? "Gauss-Newton matrix"
                                                            : "Residual H - G";
  what += job.objective == Objective::perplexity ? " of the perplexity" : " of the mean cross entropy";
  const auto& tensors = job.selection.tensors;
  std::string where;
  if (tensors.size() == 1) {
    where = tensors[0].layer + (tensors[0].block < 0 ? "" : fmt::format(" of block {}", tensors[0].block));
  } else {
    where = fmt::format("{} tensors", tensors.size());
  }
  return fmt::format("{}: {}, {}, n = {}, b = {}, T = {}", what, job.model_name, where, job.selection.selection.size(),
                     job.windows.ids.size(0), job.windows.ids.size(1));
}

HeatMap picture(const ExactJob& job, Curvature curvature, const at::Tensor& matrix) {
  HeatMap map{.values = matrix, .title = description(job, curvature)};
  std::set<int64_t> blocks;
  for (const SelectedTensor& tensor : job.selection.tensors) blocks.insert(tensor.block);
  if (job.selection.tensors.size() > 1) {
    for (const SelectedTensor& tensor : job.selection.tensors) {
      const bool numbered = blocks.size() > 1 && tensor.block >= 0;
      map.groups.push_back(
          {numbered ? fmt::format("{}.{}", tensor.block, tensor.layer) : tensor.layer, tensor.begin, tensor.end});
    }
  }
  return map;
}

void write_aux(const fs::path& base, const ExactJob& job, const ExactResult& result, const ExactBlock& block) {
  const auto& parts = job.selection.selection.parts();
  at::Tensor rows = at::empty({job.selection.selection.size(), 3}, at::kLong);  // tensor, row, column
  json names = json::array();
  for (size_t i = 0; i < parts.size(); ++i) {
    at::Tensor here = rows.narrow(0, parts[i].begin, parts[i].size);
    here.select(1, 0).fill_(static_cast<int64_t>(i));
    here.select(1, 1).copy_(at::floor_divide(parts[i].entries(), parts[i].columns));
    here.select(1, 2).copy_(at::remainder(parts[i].entries(), parts[i].columns));
    names.push_back(job.selection.tensors[i].name);
  }
  std::vector<std::pair<std::string, at::Tensor>> tensors = {{"gradient", result.gradient},
                                                             {"weights", result.weights},
                                                             {"rows", rows},
                                                             {"losses", result.losses},
                                                             {"windows", at::tensor(job.windows.index, at::kLong)}};
  if (block.standard_error.defined()) tensors.emplace_back("standard_error", block.standard_error);
  write_safetensors(with_extension(base, ".aux.safetensors").string(), tensors, {{"tensors", names.dump()}});
}

RunRecord record_of(const ExactJob& job, const ExactResult& result, const ExactBlock& block) {
  const std::string precision =
      job.options.engine == Engine::autograd
          ? precision_name(job.options.precision)
          : fmt::format("{} tangents, {} primal", precision_name(result.plan.precision, result.plan.products),
                        precision_name(result.plan.primal));
  RunRecord record =
      new_record(job,
                 {result.loss, result.products, result.seconds, job.options.device_names(), precision,
                  result.peak_memory, block.kind == result.blocks[0].kind ? result.precision_error : std::nullopt},
                 exact_configuration(job, block.kind));
  for (size_t i = 0; i < job.selection.tensors.size(); ++i) {
    const SelectedTensor& tensor = job.selection.tensors[i];
    record.selection.push_back({tensor.name, tensor.shape, to_vector(job.selection.selection.parts()[i].entries())});
  }
  record.gradient_norm = result.gradient.norm().item<double>();
  record.errors.symmetry = block.symmetry_error;
  record.errors.data = block.data_error;
  return record;
}

}  // namespace

std::string precision_name(at::ScalarType precision, Products products) {
  if (products != Products::full) return to_string(products);
  return precision == at::kDouble ? "fp64" : "fp32";
}

std::string to_string(Curvature curvature) {
  switch (curvature) {
    case Curvature::hessian:
      return "hessian";
    case Curvature::gauss_newton:
      return "gauss-newton";
    default:
      return "residual";
  }
}

std::string to_string(Objective objective) {
  return objective == Objective::perplexity ? "perplexity" : "cross-entropy";
}

std::string exact_name(const ExactJob& job, Curvature curvature) {
  NameParts parts;
  std::set<int64_t> blocks;
  for (const SelectedTensor& tensor : job.selection.tensors) {
    if (std::find(parts.layers.begin(), parts.layers.end(), tensor.layer) == parts.layers.end()) {
      parts.layers.push_back(tensor.layer);
    }
    if (tensor.block >= 0) blocks.insert(tensor.block);
  }
  parts.blocks.assign(blocks.begin(), blocks.end());
  const bool product = job.selection.tensors.size() == parts.layers.size() * std::max<size_t>(blocks.size(), 1);
  parts.first_layers = product && parts.layers.size() <= job.linear_layers.size() &&
                       std::equal(parts.layers.begin(), parts.layers.end(), job.linear_layers.begin());
  const std::optional<int64_t> t = first_weights(job.selection);
  parts.first_weights = product && t.has_value();
  parts.t = t.value_or(0);
  parts.n = job.selection.selection.size();
  parts.b = job.windows.ids.size(0);
  parts.seed = job.seed;
  parts.seqlen = job.windows.ids.size(1);
  parts.perplexity = job.objective == Objective::perplexity;
  parts.method = method_name(curvature);
  parts.selection_sha256 = selection_sha256(job.selection);
  return result_name(parts);
}

json exact_configuration(const ExactJob& job, Curvature curvature) {
  const ExactOptions& o = job.options;
  return {{"model_sha256", job.model_sha256},
          {"ids_sha256", ids_sha256(job.windows.ids)},
          {"labels_sha256", ids_sha256(job.windows.labels)},
          {"windows", job.windows.index},
          {"selection_sha256", selection_sha256(job.selection)},
          {"objective", to_string(job.objective)},
          {"curvature", to_string(curvature)},
          {"engine", o.engine == Engine::hesper ? "hesper" : "autograd"},
          {"pass", o.pass ? to_string(*o.pass) : "auto"},
          {"precision", precision_name(o.precision, o.products)},
          {"primal_precision", o.primal ? precision_name(*o.primal) : "auto"},
          {"errors", o.full_errors ? "full" : "summary"}};
}

fs::path snapshot_file(const fs::path& folder, const ExactJob& job) {
  return with_extension(folder / exact_name(job, job.options.curvatures[0]), ".snapshot");
}

json configuration(const ExactJob& job) {
  json out = exact_configuration(job, job.options.curvatures[0]);
  out["curvatures"] = json::array();
  for (const Curvature kind : job.options.curvatures) out["curvatures"].push_back(to_string(kind));
  return out;
}

bool exact_exists(const fs::path& folder, const ExactJob& job) {
  return std::any_of(job.options.curvatures.begin(), job.options.curvatures.end(), [&](Curvature curvature) {
    return fs::exists(with_extension(folder / exact_name(job, curvature), ".json"));
  });
}

void check_existing(const fs::path& folder, const ExactJob& job) {
  for (const Curvature curvature : job.options.curvatures)
    check_configuration(with_extension(folder / exact_name(job, curvature), ".json"),
                        exact_configuration(job, curvature));
}

at::Tensor exact_matrix(const ExactJob& job, const ExactResult& result, const ExactBlock& block) {
  if (job.objective == Objective::cross_entropy) return block.matrix;
  if (block.kind == Curvature::residual) return block.matrix * std::exp(result.mean_loss);
  return perplexity_hessian(block.matrix, result.gradient, result.mean_loss);
}

std::vector<WrittenResult> write_exact(const fs::path& folder, const ExactJob& job, const ExactResult& result) {
  std::vector<WrittenResult> written;
  for (const ExactBlock& block : result.blocks) {
    const fs::path base = folder / exact_name(job, block.kind);
    const at::Tensor matrix = exact_matrix(job, result, block);
    RunRecord record = record_of(job, result, block);
    if (matrix.size(0) <= max_spectrum_size) record.spectrum = spectrum(matrix);

    std::error_code ignored;
    fs::remove(with_extension(base, ".json"), ignored);
    write_pt(with_extension(base, ".pt"), matrix.to(job.options.precision));
    write_aux(base, job, result, block);
    const HeatMap map = picture(job, block.kind, matrix);
    write_heat_map(map, with_extension(base, ".pdf"));
    write_heat_map(map, with_extension(base, ".png"));

    json out = to_json(record);
    out["errors_of"] = to_string(block.kind) + " of the mean cross entropy";
    out["mean_window_loss"] = result.mean_loss;
    if (job.options.engine == Engine::hesper) out["plan"] = plan_json(result.plan);
    write_json(with_extension(base, ".json"), out);
    written.push_back({base.string(), matrix.norm().item<double>(), record.spectrum});
  }
  return written;
}

}  // namespace hesper
