#pragma once
// Models of random weights as the tool reads them, and the bytes of its results.
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "checkpoint/safetensors.h"
#include "model/config.h"
#include "model/tensor_names.h"
#include "temporary_folder.h"

namespace hesper {

namespace fs = std::filesystem;

inline fs::path random_model(const TemporaryFolder& folder, const nlohmann::json& config,
                             at::ScalarType dtype = at::kFloat) {
  const fs::path model = folder / "model";
  fs::create_directory(model);
  std::ofstream(model / "config.json") << config;
  at::manual_seed(3);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const ParameterSpec& spec : parameter_table(parse_config(config, "config.json")))
    tensors.emplace_back(spec.name, (at::randn(spec.shape) * 0.05).to(dtype));
  write_safetensors((model / "model.safetensors").string(), tensors, {});
  return model;
}

inline const nlohmann::json kOpt = {{"model_type", "opt"},
                                    {"vocab_size", 2000},
                                    {"hidden_size", 192},
                                    {"word_embed_proj_dim", 192},
                                    {"ffn_dim", 768},
                                    {"num_hidden_layers", 6},
                                    {"num_attention_heads", 6},
                                    {"max_position_embeddings", 512},
                                    {"activation_function", "relu"},
                                    {"do_layer_norm_before", true}};
inline const nlohmann::json kLlama = {
    {"model_type", "llama"},  {"vocab_size", 2000},       {"hidden_size", 192},       {"intermediate_size", 512},
    {"num_hidden_layers", 6}, {"num_attention_heads", 6}, {"num_key_value_heads", 2}, {"max_position_embeddings", 512},
    {"hidden_act", "silu"},   {"rms_norm_eps", 1e-5},     {"rope_theta", 10000.0},    {"tie_word_embeddings", false}};

/// A LLaMA whose matrices are streamed one by one (small_parameter).
inline nlohmann::json wide_llama() {
  nlohmann::json out = kLlama;
  out["hidden_size"] = 640, out["intermediate_size"] = 1920, out["num_hidden_layers"] = 8;
  out["num_attention_heads"] = 10;
  return out;
}

/// The bytes of every .pt and .csv below `out`, by name.
inline std::map<std::string, std::string> numbers_of(const fs::path& out) {
  std::map<std::string, std::string> found;
  for (const auto& entry : fs::recursive_directory_iterator(out))
    if (entry.path().extension() == ".pt" || entry.path().extension() == ".csv")
      found[entry.path().filename()] = read_bytes(entry.path());
  return found;
}

}  // namespace hesper
