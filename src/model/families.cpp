#include "model/families.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <stdexcept>

#include "ops/activation.h"

namespace hesper {
namespace {

using nlohmann::json;

// Far above every published model, far below what could overflow a product of two of them.
constexpr int64_t max_vocab = int64_t{1} << 24;
constexpr int64_t max_width = int64_t{1} << 20;
constexpr int64_t max_heads = int64_t{1} << 16;
constexpr int64_t max_blocks = int64_t{1} << 13;
constexpr int64_t max_hidden = int64_t{1} << 24;
constexpr int64_t max_position_count = int64_t{1} << 31;

Phi read_activation(const ConfigReader& json, const char* key, const char* fallback) {
  static const std::map<std::string, Phi> known = {
      {"relu", Phi::relu},        {"gelu", Phi::gelu},
      {"gelu_python", Phi::gelu}, {"gelu_new", Phi::gelu_tanh},
      {"silu", Phi::silu},        {"gelu_pytorch_tanh", Phi::gelu_tanh},
      {"swish", Phi::silu},       {"gelu_python_tanh", Phi::gelu_tanh},
  };
  const auto it = known.find(json.text(key, fallback));
  if (it == known.end()) json.refuse(key, "is not supported (relu, gelu, gelu_new, gelu_pytorch_tanh, silu are)");
  return it->second;
}

// What both families share.
void read_common(const ConfigReader& json, const char* hidden_key, ModelConfig& config) {
  config.model_type = json.text("model_type");
  config.vocab = json.integer("vocab_size", 1, max_vocab);
  config.width = json.integer("hidden_size", 1, max_width);
  config.heads = json.integer("num_attention_heads", 1, max_heads);
  config.hidden = json.integer(hidden_key, 1, max_hidden);
  config.blocks = json.integer("num_hidden_layers", 1, max_blocks);
}

int64_t width_over_heads(const ConfigReader& json, const ModelConfig& config) {
  if (config.width % config.heads != 0) {
    json.refuse("hidden_size", fmt::format("is not a multiple of num_attention_heads = {}", config.heads));
  }
  return config.width / config.heads;
}

void read_token_ids(const ConfigReader& json, int64_t bos, int64_t eos, ModelConfig& config) {
  const auto ids = json.token_ids("bos_token_id", {bos});
  if (ids.size() > 1) json.refuse("bos_token_id", "is more than one token");
  if (!ids.empty()) config.bos_id = ids[0];
  config.eos_ids = json.token_ids("eos_token_id", {eos});
}

// The rotary parameters live in rope_scaling (older, beside a rope_theta) or in rope_parameters (newer, rope_theta
// inside). transformers takes rope_scaling first, and a rope_theta inside before the one outside.
void read_rope(const ConfigReader& json, ModelConfig& config) {
  static const std::map<std::string, RopeType> known = {
      {"default", RopeType::standard}, {"linear", RopeType::linear},     {"dynamic", RopeType::dynamic},
      {"llama3", RopeType::llama3},    {"divisors", RopeType::divisors},  // hesper's own, never in a config.json of
                                                                          // others
  };
  config.rope_theta = json.positive("rope_theta", 10000.0);
  const nlohmann::json* scaling = json.find("rope_scaling");
  const bool older = scaling != nullptr && !(scaling->is_object() && scaling->empty());
  const char* key = older ? "rope_scaling" : "rope_parameters";
  const nlohmann::json* found = json.find(key);
  if (found == nullptr) return;
  const ConfigReader rope(*found, json.file(), std::string(key) + ".");

  config.rope_theta = rope.positive("rope_theta", config.rope_theta);
  const char* type_key = rope.has("rope_type") ? "rope_type" : "type";
  const std::string type = rope.text(type_key, "default");
  const auto it = known.find(type);
  if (it == known.end()) rope.refuse(type_key, "is not supported (default, linear, dynamic, llama3 are)");
  rope.only("type", {type});
  rope.only("partial_rotary_factor", {1});
  rope.only("attention_factor", {1});
  for (const auto& [name, value] : found->items()) {
    if (value.is_object()) rope.refuse(name.c_str(), "is not supported: rotary parameters by type of layer");
  }

  config.rope.type = it->second;
  if (it->second == RopeType::standard) return;
  if (it->second == RopeType::divisors) {
    const auto fits = [](const nlohmann::json& value) { return value.is_number() && value >= 1e-6 && value <= 1e6; };
    const nlohmann::json* divisors = rope.find("divisors");
    if (divisors == nullptr || !divisors->is_array() || std::ssize(*divisors) * 2 != config.head_dim ||
        !std::all_of(divisors->begin(), divisors->end(), fits)) {
      rope.refuse("divisors", fmt::format("is not a list of {} numbers from 1e-6 to 1e6", config.head_dim / 2));
    }
    config.rope.divisors = divisors->get<std::vector<double>>();
    return;
  }
  config.rope.factor = rope.positive("factor");
  if (it->second != RopeType::llama3) return;
  config.rope.low_freq_factor = rope.positive("low_freq_factor");
  config.rope.high_freq_factor = rope.positive("high_freq_factor");
  if (config.rope.high_freq_factor <= config.rope.low_freq_factor) {
    rope.refuse("high_freq_factor", fmt::format("is not above low_freq_factor = {}", config.rope.low_freq_factor));
  }
  constexpr const char* original = "original_max_position_embeddings";
  config.rope.original_max_positions = json.integer(
      original, 1, max_position_count, rope.integer(original, 1, max_position_count, config.max_positions));
}

}  // namespace

ModelConfig parse_opt_config(const ConfigReader& json) {
  ModelConfig config;
  config.family = Family::opt;
  read_common(json, "ffn_dim", config);
  config.head_dim = width_over_heads(json, config);
  config.kv_heads = config.heads;
  config.max_positions = json.integer("max_position_embeddings", 1, max_position_count, 2048);
  config.norm_eps = 1e-5;  // torch.nn.LayerNorm's default: OPT's config has no say
  json.only("layer_norm_eps", {1e-5});
  config.activation = read_activation(json, "activation_function", "relu");
  config.tied_head = json.boolean("tie_word_embeddings", true);
  read_token_ids(json, 2, 2, config);
  config.embed_dim = json.integer("word_embed_proj_dim", 1, max_width, config.width);
  config.norm_before = json.boolean("do_layer_norm_before", true);
  config.final_norm = config.norm_before && !json.boolean("_remove_final_layer_norm", false);
  config.bias = json.boolean("enable_bias", true);
  config.norm_affine = json.boolean("layer_norm_elementwise_affine", true);
  return config;
}

ModelConfig parse_llama_config(const ConfigReader& json) {
  ModelConfig config;
  config.family = Family::llama;
  read_common(json, "intermediate_size", config);
  const bool mistral = config.model_type == "mistral";
  if (mistral) {
    // Its attention and MLP never have biases, and an absent sliding_window means 4096.
    json.only("attention_bias", {false});
    json.only("mlp_bias", {false});
  }
  config.kv_heads = json.integer("num_key_value_heads", 1, max_heads, mistral ? 8 : config.heads);
  if (config.heads % config.kv_heads != 0) {
    json.refuse("num_key_value_heads", fmt::format("does not divide num_attention_heads = {}", config.heads));
  }
  config.head_dim = json.has("head_dim") ? json.integer("head_dim", 1, max_width) : width_over_heads(json, config);
  if (config.head_dim % 2 != 0) {
    throw std::runtime_error(
        fmt::format("{}: head_dim = {}, a rotary embedding needs an even one", json.file(), config.head_dim));
  }
  config.max_positions = json.integer("max_position_embeddings", 1, max_position_count, mistral ? 131072 : 2048);
  config.norm_eps = json.positive("rms_norm_eps", 1e-6);
  config.activation = read_activation(json, "hidden_act", "silu");
  config.tied_head = json.boolean("tie_word_embeddings", false);
  read_token_ids(json, 1, 2, config);
  config.embed_dim = config.width;
  read_rope(json, config);
  if (config.rope.type == RopeType::dynamic && config.head_dim == 2) {
    json.refuse("head_dim", "is too small for dynamic rotary scaling, whose exponent is D/(D-2)");
  }
  config.attention_bias = json.boolean("attention_bias", false);
  config.mlp_bias = json.boolean("mlp_bias", false);
  return config;
}

}  // namespace hesper
