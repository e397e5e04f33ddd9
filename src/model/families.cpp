#include "model/families.h"

#include <cmath>

#include "model/config_parts.h"

namespace hesper {
namespace {

double over_root(int64_t width) { return 1 / std::sqrt(static_cast<double>(width)); }

}  // namespace

ModelConfig parse_opt_config(const ConfigReader& json) {
  ModelConfig config;
  config.family = Family::opt;
  read_shapes(json, {.hidden = "ffn_dim"}, config);
  config.head_dim = width_over_heads(json, config);
  config.kv_heads = config.heads;
  config.attention_scale = over_root(config.head_dim);
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

ModelConfig parse_gpt2_config(const ConfigReader& json) {
  ModelConfig config;
  config.family = Family::gpt2;
  read_shapes(json, {.width = "n_embd", .heads = "n_head", .blocks = "n_layer", .hidden = nullptr}, config);
  config.hidden = json.integer("n_inner", 1, max_hidden, 4 * config.width);
  config.head_dim = width_over_heads(json, config, "n_embd");
  config.kv_heads = config.heads;
  config.attention_scale = json.boolean("scale_attn_weights", true) ? over_root(config.head_dim) : 1;
  config.scale_by_block = json.boolean("scale_attn_by_inverse_layer_idx", false);
  config.max_positions = json.integer("n_positions", 1, max_position_count, 1024);
  config.norm_eps = json.positive("layer_norm_epsilon", 1e-5);
  config.activation = read_activation(json, "activation_function", "gelu_new");
  config.tied_head = json.boolean("tie_word_embeddings", true);
  read_token_ids(json, 50256, 50256, config);
  return config;
}

ModelConfig parse_gpt_neox_config(const ConfigReader& json) {
  ModelConfig config;
  config.family = Family::gpt_neox;
  read_shapes(json, {}, config);
  config.head_dim = width_over_heads(json, config);
  config.kv_heads = config.heads;
  config.attention_scale = over_root(config.head_dim);
  config.attention_bias = config.output_bias = json.boolean("attention_bias", true);
  config.max_positions = json.integer("max_position_embeddings", 1, max_position_count, 2048);
  config.norm_eps = json.positive("layer_norm_eps", 1e-5);
  config.activation = read_activation(json, "hidden_act", "gelu");
  config.tied_head = json.boolean("tie_word_embeddings", false);
  config.parallel_residual = json.boolean("use_parallel_residual", true);
  read_token_ids(json, 0, 2, config);
  read_rope(json, {.theta = "rotary_emb_base", .partial = "rotary_pct", .default_partial = 0.25}, config);
  return config;
}

}  // namespace hesper
