#include "model/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>
#include <utility>

#include "model/config_reader.h"
#include "model/families.h"

namespace hesper {
namespace {

using nlohmann::json;

// Fields that other models (or forks of these) use to change the mathematics, with the values that change nothing.
// transformers' own OPT and LLaMA code would ignore most of them in silence.
void refuse_unsupported(const ConfigReader& config) {
  static const std::vector<std::pair<const char*, std::vector<json>>> neutral = {
      {"quantization_config", {}},
      {"compression_config", {}},
      {"auto_map", {}},  // the folder's own modelling code
      {"sliding_window", {}},
      {"use_sliding_window", {false}},
      {"attention_chunk_size", {}},
      {"attn_logit_softcapping", {}},
      {"final_logit_softcapping", {}},
      {"query_pre_attn_scalar", {}},
      {"attention_multiplier", {}},
      {"residual_multiplier", {1}},
      {"embedding_multiplier", {1}},
      {"logits_scaling", {1}},
      {"logit_scale", {1}},
      {"scale_emb", {1}},
      {"scale_depth", {}},
      {"scale_embeddings", {false}},
      {"learned_embeddings", {true}},
      {"alibi", {false}},
      {"partial_rotary_factor", {1}},
      {"rotary_pct", {1}},
      {"rope_interleaved", {false}},
      {"no_rope_layers", {json::array()}},
      {"no_rope_layer_interval", {}},
      {"qk_norm", {false}},
      {"use_qk_norm", {false}},
      {"qk_layernorm", {false}},
      {"num_experts", {0, 1}},
      {"num_local_experts", {0, 1}},
      {"n_routed_experts", {0, 1}},
      {"parallel_attn", {false}},
      {"use_parallel_residual", {false}},
      {"is_encoder_decoder", {false}},
      {"add_cross_attention", {false}},
      {"pruned_heads", {json::object()}},
  };
  for (const auto& [key, values] : neutral) config.only(key, values);

  if (const json* types = config.find("layer_types")) {
    const bool full = types->is_array() && std::all_of(types->begin(), types->end(),
                                                       [](const json& type) { return type == "full_attention"; });
    if (!full) config.refuse("layer_types", "is not supported (full_attention alone is)");
  }
}

// "OPTForCausalLM" and the bare "OPTModel"; LLaMA's first checkpoints wrote "LLaMA".
void check_architectures(const ConfigReader& config, const std::string& model_type) {
  const json* names = config.find("architectures");
  if (names == nullptr) return;
  if (!names->is_array()) config.refuse("architectures", "is not a list");
  const std::vector<std::string> known = model_type == "opt"     ? std::vector<std::string>{"OPT"}
                                         : model_type == "llama" ? std::vector<std::string>{"Llama", "LLaMA"}
                                                                 : std::vector<std::string>{"Mistral"};
  for (const json& name : *names) {
    const bool supported = std::any_of(known.begin(), known.end(), [&](const std::string& stem) {
      return name == stem + "ForCausalLM" || name == stem + "Model";
    });
    if (!supported) config.refuse("architectures", "is not supported (causal language models are)");
  }
}

}  // namespace

ModelConfig parse_config(const json& object, const std::string& file) {
  const ConfigReader config(object, file);
  const std::string model_type = config.text("model_type");
  if (model_type != "opt" && model_type != "llama" && model_type != "mistral") {
    config.refuse("model_type", "is not supported (opt, llama, mistral are)");
  }
  check_architectures(config, model_type);
  refuse_unsupported(config);
  if (model_type == "mistral" && !object.contains("sliding_window")) {
    config.refuse("sliding_window", "then means a window of 4096, which is not supported (null means none)");
  }
  return model_type == "opt" ? parse_opt_config(config) : parse_llama_config(config);
}

std::vector<double> rotary_inverse_frequencies(const ModelConfig& config, int64_t seqlen) {
  if (config.family != Family::llama || seqlen < 1) {
    throw std::invalid_argument(
        fmt::format("[rotary] no frequencies for a model of type {} and {} tokens", config.model_type, seqlen));
  }
  const RopeScaling& rope = config.rope;
  const auto dim = static_cast<double>(config.head_dim);
  const auto trained = static_cast<double>(config.max_positions);
  const double tokens = std::max(static_cast<double>(seqlen), trained);

  // dynamic: theta' = theta (factor T / T0 - (factor - 1))^(D / (D - 2)), T0 the trained length, T at least T0
  double theta = config.rope_theta;
  if (rope.type == RopeType::dynamic) {
    theta *= std::pow(rope.factor * tokens / trained - (rope.factor - 1), dim / (dim - 2));
  }

  std::vector<double> frequencies;
  for (int64_t i = 0; i < config.head_dim; i += 2) {
    double frequency = 1 / std::pow(theta, static_cast<double>(i) / dim);
    if (rope.type == RopeType::linear) frequency /= rope.factor;
    if (rope.type == RopeType::llama3) {
      // wavelengths above T0/low are stretched by factor, below T0/high kept, linearly blended in between
      const double turns = static_cast<double>(rope.original_max_positions) * frequency / (2 * std::numbers::pi);
      const double smooth =
          std::clamp((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0.0, 1.0);
      frequency = (1 - smooth) * frequency / rope.factor + smooth * frequency;
    }
    if (rope.type == RopeType::divisors) frequency /= rope.divisors[static_cast<size_t>(i / 2)];
    frequencies.push_back(frequency);
  }
  return frequencies;
}

}  // namespace hesper
