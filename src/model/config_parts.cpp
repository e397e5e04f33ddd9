#include "model/config_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <stdexcept>

#include "ops/activation.h"

namespace hesper {

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

void read_shapes(const ConfigReader& json, const ShapeKeys& keys, ModelConfig& config) {
  config.model_type = json.text("model_type");
  config.vocab = json.integer("vocab_size", 1, max_vocab, keys.default_vocab);
  config.width = json.integer(keys.width, 1, max_width);
  config.heads = json.integer(keys.heads, 1, max_heads, keys.default_heads);
  if (keys.hidden != nullptr) config.hidden = json.integer(keys.hidden, 1, max_hidden);
  config.blocks = json.integer(keys.blocks, 1, max_blocks);
  config.embed_dim = config.width;
  config.window.assign(static_cast<size_t>(config.blocks), 0);
}

int64_t width_over_heads(const ConfigReader& json, const ModelConfig& config, const char* width_key) {
  if (config.width % config.heads != 0) {
    json.refuse(width_key, fmt::format("is not a multiple of the {} attention heads", config.heads));
  }
  return config.width / config.heads;
}

void read_heads(const ConfigReader& json, int64_t default_kv_heads, std::optional<int64_t> default_head_dim,
                ModelConfig& config) {
  // null, unlike no entry, means one for each head.
  config.kv_heads = json.integer("num_key_value_heads", 1, max_heads,
                                 json.contains("num_key_value_heads") ? config.heads : default_kv_heads);
  if (config.heads % config.kv_heads != 0) {
    json.refuse("num_key_value_heads", fmt::format("does not divide num_attention_heads = {}", config.heads));
  }
  const bool derived = !json.has("head_dim") && (json.contains("head_dim") || !default_head_dim);
  config.head_dim = derived ? width_over_heads(json, config) : json.integer("head_dim", 1, max_width, default_head_dim);
}

void read_token_ids(const ConfigReader& json, std::optional<int64_t> bos, std::optional<int64_t> eos,
                    ModelConfig& config) {
  const auto listed = [](std::optional<int64_t> id) { return id ? std::vector<int64_t>{*id} : std::vector<int64_t>{}; };
  const auto ids = json.token_ids("bos_token_id", listed(bos));
  if (ids.size() > 1) json.refuse("bos_token_id", "is more than one token");
  if (!ids.empty()) config.bos_id = ids[0];
  config.eos_ids = json.token_ids("eos_token_id", listed(eos));
}

void read_rope(const ConfigReader& json, const RopeKeys& keys, ModelConfig& config) {
  const nlohmann::json* scaling = json.find("rope_scaling");
  const bool older = scaling != nullptr && !(scaling->is_object() && scaling->empty());
  const char* key = older ? "rope_scaling" : "rope_parameters";
  const nlohmann::json* found = json.find(key);
  static const nlohmann::json nothing = nlohmann::json::object();
  read_rope_object(json, ConfigReader(found == nullptr ? nothing : *found, json.file(), json.prefix() + key + "."),
                   keys, config);
}

void read_rope_object(const ConfigReader& json, const ConfigReader& rope, const RopeKeys& keys, ModelConfig& config) {
  static const std::map<std::string, RopeType> known = {
      {"default", RopeType::standard}, {"linear", RopeType::linear},     {"dynamic", RopeType::dynamic},
      {"llama3", RopeType::llama3},    {"divisors", RopeType::divisors},
  };
  config.rope_theta = rope.positive("rope_theta", json.positive(keys.theta, keys.default_theta));
  const char* type_key = rope.has("rope_type") ? "rope_type" : "type";
  const std::string type = rope.text(type_key, "default");
  const auto it = known.find(type);
  if (it == known.end() || (it->second == RopeType::divisors && !json.from_gguf()))
    rope.refuse(type_key, "is not supported (default, linear, dynamic, llama3 are)");
  rope.only("type", {type});
  rope.only("attention_factor", {1});
  for (const auto& [name, value] : rope.object().items()) {
    if (value.is_object()) rope.refuse(name.c_str(), "is not supported: rotary parameters by type of layer");
  }

  double partial = 1;
  if (keys.partial == nullptr)
    rope.only("partial_rotary_factor", {1});
  else
    partial = rope.positive("partial_rotary_factor", json.positive(keys.partial, keys.default_partial));
  const double turned = static_cast<double>(config.head_dim) * partial;
  config.rotary_dims = turned < 1e9 ? static_cast<int64_t>(turned) : -1;
  if (config.rotary_dims < 2 || config.rotary_dims > config.head_dim || config.rotary_dims % 2 != 0) {
    throw std::runtime_error(
        partial == 1 ? fmt::format("{}: {}head_dim = {}, a rotary embedding needs an even one", json.file(),
                                   json.prefix(), config.head_dim)
                     : fmt::format("{}: {:g} of the {} channels of a head are turned, a rotary embedding needs an even "
                                   "number of them",
                                   json.file(), partial, config.head_dim));
  }

  config.rope.type = it->second;
  if (it->second == RopeType::standard) return;
  if (it->second == RopeType::divisors) {
    const auto fits = [](const nlohmann::json& value) { return value.is_number() && value >= 1e-6 && value <= 1e6; };
    const nlohmann::json* divisors = rope.find("divisors");
    if (divisors == nullptr || !divisors->is_array() || std::ssize(*divisors) * 2 != config.rotary_dims ||
        !std::all_of(divisors->begin(), divisors->end(), fits)) {
      rope.refuse("divisors", fmt::format("is not a list of {} numbers from 1e-6 to 1e6", config.rotary_dims / 2));
    }
    config.rope.divisors = divisors->get<std::vector<double>>();
    return;
  }
  config.rope.factor = rope.positive("factor");
  if (it->second == RopeType::dynamic && config.rotary_dims == 2) {
    json.refuse("head_dim", "is too small for dynamic rotary scaling, whose exponent is D/(D-2)");
  }
  if (it->second != RopeType::llama3) return;
  config.rope.low_freq_factor = rope.positive("low_freq_factor");
  config.rope.high_freq_factor = rope.positive("high_freq_factor");
  if (config.rope.high_freq_factor < config.rope.low_freq_factor) {
    rope.refuse("high_freq_factor", fmt::format("is below low_freq_factor = {}", config.rope.low_freq_factor));
  }
  constexpr const char* original = "original_max_position_embeddings";
  config.rope.original_max_positions = json.integer(
      original, 1, max_position_count, rope.integer(original, 1, max_position_count, config.max_positions));
}

void read_windows(const ConfigReader& json, std::optional<int64_t> sliding_window, bool (*sliding)(int64_t, int64_t),
                  int64_t pattern, ModelConfig& config) {
  const auto types = json.choices("layer_types", config.blocks, {"full_attention", "sliding_attention"});
  for (int64_t i = 0; i < config.blocks; ++i) {
    const auto block = static_cast<size_t>(i);
    if (!(types ? (*types)[block] == 1 : sliding_window && sliding(i, pattern))) continue;
    if (!sliding_window) json.refuse("layer_types", "has a sliding_attention, but no sliding window is set");
    config.window[block] = *sliding_window;
  }
}

}  // namespace hesper
