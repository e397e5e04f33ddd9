#include "run/imatrix_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/gguf_names.h"
#include "files/gguf_writer.h"

namespace hesper {
namespace {

/// llama.cpp's name of a tensor that it quantises; "" where it has none.
std::string name_in_llama_cpp(const std::string& tensor) {
  const std::string name = gguf_name(tensor);
  const bool known = name != tensor || name.starts_with("blk.");
  return known && name.ends_with(".weight") ? name : "";
}

}  // namespace

void check_imatrix(const DiagonalJob& job) {
  for (size_t i = 0; i < job.selection.tensors.size(); ++i) {
    const SelectedTensor& tensor = job.selection.tensors[i];
    if (tensor.shape.size() != 2 || !job.selection.selection.parts()[i].whole) {
      throw std::invalid_argument(fmt::format("--export imatrix: {} is not a whole matrix", tensor.name));
    }
    if (name_in_llama_cpp(tensor.name).empty()) {
      throw std::invalid_argument(fmt::format("--export imatrix: llama.cpp has no name for {}", tensor.name));
    }
  }
}

ImatrixColumns write_imatrix(const std::filesystem::path& path, const DiagonalJob& job, const DiagonalResult& result) {
  const at::Tensor& labels = job.windows.labels;  // nothing is predicted for position 0
  const auto tokens = labels.narrow(1, 1, labels.size(1) - 1).ne(-100).sum().item<int64_t>();
  ImatrixColumns count;
  std::map<std::string, std::vector<float>> sums;  // sorted by name, as llama.cpp's are
  for (size_t i = 0; i < result.tensors.size(); ++i) {
    const SelectedTensor& tensor = job.selection.tensors[i];
    const SumRun& run = *job.sums[i].find("column");
    const at::Tensor a =
        result.tensors[i].sums.mean.narrow(0, run.begin, run.count).to(at::kCPU, at::kDouble) / tensor.shape[0];
    const at::Tensor positive = a.gt(0);
    if (!positive.any().item<bool>()) {
      count.left_out.push_back(tensor.name);
      continue;
    }
    const double least = least_importance * a.masked_select(positive).mean().item<double>();
    count.columns += a.numel();
    count.raised += a.lt(least).sum().item<int64_t>();
    const at::Tensor scaled = a.clamp_min(least).mul(static_cast<double>(tokens)).to(at::kFloat).contiguous();
    const float* values = scaled.const_data_ptr<float>();
    sums[name_in_llama_cpp(tensor.name)] = {values, values + scaled.numel()};
  }
  if (sums.empty()) throw std::runtime_error(fmt::format("{}: no column has a positive sum", path.string()));
  GgufWriter writer;
  writer.add_text("general.type", "imatrix");
  writer.add_texts("imatrix.datasets", {job.data_name});
  writer.add_number("imatrix.chunk_count", static_cast<uint32_t>(job.windows.ids.size(0)));
  writer.add_number("imatrix.chunk_size", static_cast<uint32_t>(job.windows.ids.size(1)));
  for (auto& [name, values] : sums) {
    writer.add_tensor(fmt::format("{}.in_sum2", name), std::move(values));
    writer.add_tensor(fmt::format("{}.counts", name), {static_cast<float>(tokens)});
  }
  writer.write(path);
  return count;
}

}  // namespace hesper
