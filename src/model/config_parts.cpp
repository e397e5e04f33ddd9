#include "model/config_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

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
