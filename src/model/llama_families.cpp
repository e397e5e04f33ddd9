// LLaMA and what descends from it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/config_parts.h"
#include "model/families.h"
#include "ops/activation.h"

namespace hesper {
namespace {

double over_root(double x) { return 1 / std::sqrt(x); }

bool all_blocks(int64_t, int64_t) { return true; }
bool from_block(int64_t block, int64_t first) { return block >= first; }
bool all_but_every(int64_t block, int64_t n) { return (block + 1) % n != 0; }

// Where transformers' class has other defaults than LLaMA's.
struct Defaults {
  std::optional<int64_t> kv_heads, head_dim;
  int64_t max_positions;
  std::optional<int64_t> bos, eos;
  double norm_eps = 1e-6;
};
Defaults defaults_of(const std::string& model_type) {
  if (model_type == "gemma") return {{}, 256, 8192, 2, 1};
  if (model_type == "mistral") return {8, {}, 131072, 1, 2};
  if (model_type == "phi3") return {{}, {}, 4096, 1, 32000, 1e-5};
  if (model_type == "qwen2") return {32, {}, 32768, {}, {}};
  if (model_type == "qwen3") return {32, 128, 32768, {}, {}};
  return {{}, {}, 2048, 1, 2};
}

std::optional<int64_t> window_of(const ConfigReader& json, std::optional<int64_t> fallback) {
  if (json.has("sliding_window")) return json.integer("sliding_window", 1, max_position_count);
  return json.contains("sliding_window") ? std::nullopt : fallback;  // null is none
}

// Phi-3's folders bring the code that transformers has since taken over: classes Phi3... of modeling_phi3.
void check_own_code(const ConfigReader& json) {
  const nlohmann::json* map = json.find("auto_map");
  if (map == nullptr) return;
  for (const auto& [key, value] : ConfigReader(*map, json.file(), json.prefix() + "auto_map.").object().items())
    if (!value.is_string() || value.get_ref<const std::string&>().find("_phi3.Phi3") == std::string::npos)
      json.refuse("auto_map");
}

}  // namespace

ModelConfig parse_llama_config(const ConfigReader& json) {
  ModelConfig config;
  config.family = Family::llama;
  read_shapes(json, {}, config);
  const std::string& type = config.model_type;
  const bool mistral = type == "mistral", qwen2 = type == "qwen2", qwen3 = type == "qwen3", phi = type == "phi3",
             gemma = type == "gemma";
  if (mistral || qwen2 || phi) json.only("attention_bias", {qwen2});  // their code does not read these
  if (type != "llama") json.only("mlp_bias", {false});
  if (phi) check_own_code(json);
  const Defaults defaults = defaults_of(type);
  read_heads(json, defaults.kv_heads.value_or(config.heads), defaults.head_dim, config);
  config.attention_scale = over_root(static_cast<double>(config.head_dim));
  config.max_positions = json.integer("max_position_embeddings", 1, max_position_count, defaults.max_positions);
  config.norm_eps = json.positive("rms_norm_eps", defaults.norm_eps);
  config.activation = read_activation(json, "hidden_act", gemma ? "gelu_pytorch_tanh" : "silu");
  if (gemma && config.activation == Phi::gelu) config.activation = Phi::gelu_tanh;  // what its first files meant
  config.tied_head = json.boolean("tie_word_embeddings", gemma);
  read_token_ids(json, defaults.bos, defaults.eos, config);
  RopeKeys rope;
  if (phi) rope.partial = "partial_rotary_factor", rope.own_original = 4096;
  read_rope(json, rope, config);
  if (mistral || phi)
    read_windows(json, window_of(json, mistral ? std::optional<int64_t>(4096) : std::nullopt), all_blocks, 0, config);
  if (qwen2 || qwen3) {
    const bool sliding = json.boolean("use_sliding_window", false);
    read_windows(json, sliding ? window_of(json, 4096) : std::nullopt, from_block,
                 json.integer("max_window_layers", 0, max_blocks, 28), config);
  }
  config.attention_bias = json.boolean("attention_bias", qwen2);
  config.output_bias = config.attention_bias && !qwen2;
  config.mlp_bias = json.boolean("mlp_bias", false);
  config.qk_norm = qwen3;
  config.gains_less_one = gemma;
  config.fused_layers = phi;
  return config;
}

ModelConfig parse_gemma_config(const ConfigReader& json) {
  ModelConfig config;
  config.family = Family::gemma;
  const bool third = json.text("model_type") == "gemma3_text";
  read_shapes(json, {.default_vocab = third ? 262208 : 256000, .default_heads = 8}, config);
  read_heads(json, 4, 256, config);
  config.attention_scale = over_root(json.positive("query_pre_attn_scalar", 256));
  const auto cap = [&](const char* key, double fallback) {
    return json.has(key) ? json.positive(key) : json.contains(key) || third ? 0 : fallback;
  };
  config.attention_softcap = cap("attn_logit_softcapping", 50);
  config.logits_softcap = cap("final_logit_softcapping", 30);
  config.max_positions = json.integer("max_position_embeddings", 1, max_position_count, third ? 131072 : 8192);
  config.norm_eps = json.positive("rms_norm_eps", 1e-6);
  config.activation = read_activation(json, "hidden_activation", "gelu_pytorch_tanh");
  config.tied_head = json.boolean("tie_word_embeddings", true);
  read_token_ids(json, 2, 1, config);
  config.attention_bias = config.output_bias = json.boolean("attention_bias", false);
  config.qk_norm = third;
  read_windows(json, window_of(json, 4096), all_but_every,
               third ? json.integer("sliding_window_pattern", 1, max_blocks, 6) : 2, config);
  if (!third) {
    read_rope(json, {}, config);
    return config;
  }
  config.local_rope_theta = json.positive("rope_local_base_freq", 10000);
  const RopeKeys global{.default_theta = 1e6};
  const nlohmann::json* by_type = json.find("rope_parameters");
  if (by_type == nullptr || !by_type->is_object() || !by_type->contains("full_attention")) {
    read_rope(json, global, config);
    return config;
  }
  const ConfigReader types(*by_type, json.file(), json.prefix() + "rope_parameters.");
  const auto of = [&](const char* key) {
    static const nlohmann::json nothing = nlohmann::json::object();
    const nlohmann::json* found = types.find(key);
    return ConfigReader(found == nullptr ? nothing : *found, json.file(), types.prefix() + key + ".");
  };
  read_rope_object(json, of("full_attention"), global, config);
  const ConfigReader local = of("sliding_attention");
  local.only("rope_type", {"default"});
  config.local_rope_theta = local.positive("rope_theta", config.local_rope_theta);
  return config;
}

ModelConfig parse_llama4_config(const ConfigReader& json) {
  ModelConfig config;
  config.family = Family::llama4;
  read_shapes(json, {.default_vocab = 202048}, config);
  read_heads(json, 8, 128, config);
  config.attention_scale = over_root(static_cast<double>(config.head_dim));
  config.max_positions = json.integer("max_position_embeddings", 1, max_position_count, 131072);
  config.norm_eps = json.positive("rms_norm_eps", 1e-5);
  config.activation = read_activation(json, "hidden_act", "silu");
  config.tied_head = json.boolean("tie_word_embeddings", false);
  read_token_ids(json, 1, 2, config);
  config.attention_bias = config.output_bias = json.boolean("attention_bias", false);
  config.qk_norm = json.boolean("use_qk_norm", true);
  read_rope(json, {.default_theta = 500000}, config);

  const auto blocks = static_cast<size_t>(config.blocks);
  config.dense_hidden = json.integer("intermediate_size_mlp", 1, max_hidden, 16384);
  config.experts = json.integer("num_local_experts", 1, max_experts, 16);
  config.experts_per_token = json.integer("num_experts_per_tok", 1, config.experts, 1);
  config.moe.assign(blocks, 0);
  if (json.has("moe_layers")) {
    for (const int64_t block : json.token_ids("moe_layers", {})) {
      if (block >= config.blocks) json.refuse("moe_layers", fmt::format("goes beyond the {} blocks", config.blocks));
      config.moe[static_cast<size_t>(block)] = 1;
    }
  } else {
    const int64_t step = json.integer("interleave_moe_layer_step", 1, max_blocks, 1);
    for (int64_t i = step - 1; i < config.blocks; i += step) config.moe[static_cast<size_t>(i)] = 1;
  }

  // Every expert of every block is a layer of its own, with names of its own.
  constexpr int64_t max_all_experts = int64_t{1} << 16;
  const int64_t mixtures = std::count(config.moe.begin(), config.moe.end(), 1);
  if (mixtures * config.experts > max_all_experts)
    json.refuse("num_local_experts", fmt::format("in {} blocks are more than {} in all", mixtures, max_all_experts));

  const nlohmann::json* listed = json.find("no_rope_layers");
  const auto rotary = listed != nullptr && !listed->empty() ? json.choices("no_rope_layers", config.blocks, {0, 1})
                                                            : std::optional<std::vector<int64_t>>();
  const int64_t interval = json.integer("no_rope_layer_interval", 1, max_blocks, 4);
  const auto types = json.choices("layer_types", config.blocks, {"full_attention", "chunked_attention"});
  config.chunk = json.contains("attention_chunk_size") && !json.has("attention_chunk_size")
                     ? 0
                     : json.integer("attention_chunk_size", 1, max_position_count, 8192);
  for (size_t i = 0; i < blocks; ++i) {
    const bool turned = rotary ? (*rotary)[i] == 1 : (static_cast<int64_t>(i) + 1) % interval != 0;
    config.rotary_block.push_back(turned);
    config.chunked.push_back(types ? (*types)[i] == 1 : turned);
    if (config.chunked.back() && config.chunk == 0)
      json.refuse("attention_chunk_size", fmt::format("the attention of block {} is chunked all the same", i));
  }

  const nlohmann::json* tuning = json.find("attn_temperature_tuning");  // a number in older files
  config.temperature =
      tuning == nullptr || (tuning->is_number() ? *tuning != 0 : json.boolean("attn_temperature_tuning", true));
  config.temperature_floor = static_cast<double>(json.integer("floor_scale", 1, max_position_count, 8192));
  config.temperature_scale = json.positive("attn_scale", 0.1);
  return config;
}

}  // namespace hesper
