#include "oracle/golden.h"

#include <filesystem>
#include <fstream>

#include "checkpoint/safetensors.h"

namespace hesper::oracle {

std::vector<std::string> golden_names() {
  return {"opt-pre",
          "opt-gelu",
          "opt-post-proj",
          "opt-bare",
          "llama-gqa",
          "llama-llama3rope",
          "llama-bias",
          "llama-linear",
          "llama-dynamic",
          "llama-mqa-tied",
          "mistral",
          "qwen2",
          "mistral-window",
          "qwen2-window",
          "qwen3",
          "qwen3-bias",
          "gpt2",
          "gpt2-options",
          "gpt2-unscaled",
          "neox",
          "neox-serial",
          "phi3",
          "phi3-window",
          "phi3-longrope",
          "phi3-short",
          "qwen2-yarn",
          "llama-yarn",
          "gemma",
          "gemma2",
          "gemma2-options",
          "gemma3",
          "gemma3-newer",
          "llama4",
          "llama4-interleaved",
          "llama4-all-options"};
}

namespace {

// A stack of experts (E, in, out) as one matrix (out, in) an expert and layer, by the engine's names.
std::vector<std::pair<std::string, at::Tensor>> pieces(const std::string& name, const at::Tensor& value) {
  if (value.dim() != 3) return {{name, value}};
  const std::string root = name.substr(0, name.rfind('.') + 1);
  const bool two = name.ends_with("gate_up_proj");
  std::vector<std::pair<std::string, at::Tensor>> out;
  for (int64_t e = 0; e < value.size(0); ++e) {
    const auto layers = two ? std::vector<std::string>{"gate_proj", "up_proj"} : std::vector<std::string>{"down_proj"};
    const auto parts = value[e].chunk(int64_t(layers.size()), 1);
    for (size_t i = 0; i < layers.size(); ++i)
      out.emplace_back(root + std::to_string(e) + "." + layers[i] + ".weight", parts[i].t());
  }
  return out;
}

}  // namespace

Golden read_golden(const std::string& name) {
  Golden golden;
  golden.folder = std::string(HESPER_SOURCE_DIR) + "/tests/golden/" + name;
  golden.config = nlohmann::json::parse(std::ifstream(golden.folder + "/config.json"));
  const SafetensorsFile weights(golden.folder + "/model.safetensors");
  for (const auto& info : weights.tensors()) {
    for (const auto& [piece, stored] : pieces(info.name, weights.view(info.name))) {
      const at::Tensor value = stored.contiguous();
      golden.weights[piece].assign(value.const_data_ptr<double>(), value.const_data_ptr<double>() + value.numel());
    }
  }
  const SafetensorsFile record(golden.folder + "/golden.safetensors");
  golden.ids = record.view("ids");
  golden.labels = record.has("labels") ? record.view("labels") : golden.ids;
  golden.loss = record.view("loss").item<double>();
  golden.window_losses = record.view("window_losses");
  golden.logits = record.view("logits");
  for (const auto& listed : nlohmann::json::parse(record.metadata().at("selections"))) {
    GoldenSelection selection;
    selection.name = listed.at("name");
    for (const auto& entry : listed.at("entries")) {
      selection.entries.emplace_back(entry.at("tensor"), entry.at("indices"));
    }
    selection.gradient = record.view(selection.name + ".gradient");
    selection.hessian = record.view(selection.name + ".hessian");
    selection.gauss_newton = record.view(selection.name + ".gauss_newton");
    golden.selections.push_back(std::move(selection));
  }
  return golden;
}

std::vector<std::vector<int64_t>> rows_of(const at::Tensor& ids) {
  std::vector<std::vector<int64_t>> rows;
  for (int64_t s = 0; s < ids.size(0); ++s) {
    const at::Tensor row = ids[s].contiguous();
    rows.emplace_back(row.const_data_ptr<int64_t>(), row.const_data_ptr<int64_t>() + row.numel());
  }
  return rows;
}

double relative_error(const at::Tensor& a, const at::Tensor& b) {
  TORCH_CHECK(a.sizes() == b.sizes(), "relative_error: ", a.sizes(), " against ", b.sizes());
  return ((a - b).norm() / b.norm()).item<double>();
}

}  // namespace hesper::oracle
