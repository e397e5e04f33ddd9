#include "model/model.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <stdexcept>

namespace hesper {

namespace fs = std::filesystem;

Model load_model(const std::string& folder) {
  Checkpoint checkpoint = Checkpoint::open(folder);
  const ModelConfig config = parse_config(checkpoint);
  Weights weights = load_weights(checkpoint, config);
  return {std::move(checkpoint), std::move(weights)};
}

std::optional<at::ScalarType> weight_type(const std::string& name) {
  static const std::map<std::string, at::ScalarType> types = {
      {"float16", at::kHalf}, {"bfloat16", at::kBFloat16}, {"float32", at::kFloat}, {"float64", at::kDouble}};
  const auto type = types.find(name);
  return type == types.end() ? std::nullopt : std::optional(type->second);
}

bool is_shape(const std::string& folder) {
  if (!fs::is_directory(folder) || !fs::exists(fs::path(folder) / "config.json")) return false;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    for (const char* end : {".safetensors", ".bin", ".gguf", ".index.json"})
      if (name.ends_with(end)) return false;
  }
  return true;
}

Model load_shape(const std::string& folder) {
  const std::string file = (fs::path(folder) / "config.json").string();
  const nlohmann::json json = read_json_object(file);
  nlohmann::json said = "float32";
  for (const char* key : {"torch_dtype", "dtype"})
    if (json.contains(key) && !json[key].is_null()) said = json[key];
  const auto dtype = said.is_string() ? weight_type(said.get<std::string>()) : std::nullopt;
  if (!dtype) throw std::runtime_error(fmt::format("{}: torch_dtype {}: no precision of weights", file, said.dump()));
  const ModelConfig config = parse_config(json, file);
  Model model{{}, {config, parameter_table(config), {}}};
  for (const ParameterSpec& spec : model.weights.specs)
    model.weights.values.push_back(at::empty(spec.shape, at::device(at::kMeta).dtype(*dtype)));
  return model;
}

}  // namespace hesper
