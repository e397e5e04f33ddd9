#include "model/tensor_names.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace hesper {
namespace {

using nlohmann::json;

ModelConfig config_of(const char* type, const json& changes) {
  json config = {
      {"model_type", type},     {"vocab_size", 10},         {"hidden_size", 8}, {"intermediate_size", 12},
      {"num_hidden_layers", 1}, {"num_attention_heads", 2}, {"ffn_dim", 12},    {"max_position_embeddings", 6}};
  config.update(changes);
  return parse_config(config, "config.json");
}

// "name 3x4" lines, as the Python below prints them.
std::string listing(const ModelConfig& config) {
  std::string lines;
  for (const ParameterSpec& spec : parameter_table(config)) {
    lines += fmt::format("{} {}\n", spec.name, fmt::join(spec.shape, "x"));
  }
  return lines;
}

// Expected listings, transformers 5.23.0:
//   for k, v in MODEL(CONFIG(vocab_size=10, hidden_size=8, num_hidden_layers=1, ..)).named_parameters():
//       print(k, "x".join(map(str, v.shape)))
TEST(TensorNames, opt_with_projections) {
  EXPECT_EQ(listing(config_of("opt", {{"word_embed_proj_dim", 4}})),
            "model.decoder.embed_tokens.weight 10x4\n"
            "model.decoder.embed_positions.weight 8x8\n"
            "model.decoder.project_out.weight 4x8\n"
            "model.decoder.project_in.weight 8x4\n"
            "model.decoder.final_layer_norm.weight 8\n"
            "model.decoder.final_layer_norm.bias 8\n"
            "model.decoder.layers.0.self_attn.k_proj.weight 8x8\n"
            "model.decoder.layers.0.self_attn.k_proj.bias 8\n"
            "model.decoder.layers.0.self_attn.v_proj.weight 8x8\n"
            "model.decoder.layers.0.self_attn.v_proj.bias 8\n"
            "model.decoder.layers.0.self_attn.q_proj.weight 8x8\n"
            "model.decoder.layers.0.self_attn.q_proj.bias 8\n"
            "model.decoder.layers.0.self_attn.out_proj.weight 8x8\n"
            "model.decoder.layers.0.self_attn.out_proj.bias 8\n"
            "model.decoder.layers.0.self_attn_layer_norm.weight 8\n"
            "model.decoder.layers.0.self_attn_layer_norm.bias 8\n"
            "model.decoder.layers.0.fc1.weight 12x8\n"
            "model.decoder.layers.0.fc1.bias 12\n"
            "model.decoder.layers.0.fc2.weight 8x12\n"
            "model.decoder.layers.0.fc2.bias 8\n"
            "model.decoder.layers.0.final_layer_norm.weight 8\n"
            "model.decoder.layers.0.final_layer_norm.bias 8\n");
}

TEST(TensorNames, opt_bare_and_untied) {
  EXPECT_EQ(
      listing(config_of(
          "opt", {{"enable_bias", false}, {"layer_norm_elementwise_affine", false}, {"tie_word_embeddings", false}})),
      "model.decoder.embed_tokens.weight 10x8\n"
      "model.decoder.embed_positions.weight 8x8\n"
      "model.decoder.layers.0.self_attn.k_proj.weight 8x8\n"
      "model.decoder.layers.0.self_attn.v_proj.weight 8x8\n"
      "model.decoder.layers.0.self_attn.q_proj.weight 8x8\n"
      "model.decoder.layers.0.self_attn.out_proj.weight 8x8\n"
      "model.decoder.layers.0.fc1.weight 12x8\n"
      "model.decoder.layers.0.fc2.weight 8x12\n"
      "lm_head.weight 10x8\n");
}

TEST(TensorNames, llama_with_biases_and_its_own_head_dim) {
  EXPECT_EQ(listing(config_of("llama", {{"num_attention_heads", 4},
                                        {"num_key_value_heads", 2},
                                        {"head_dim", 6},
                                        {"attention_bias", true},
                                        {"mlp_bias", true}})),
            "model.embed_tokens.weight 10x8\n"
            "model.layers.0.self_attn.q_proj.weight 24x8\n"
            "model.layers.0.self_attn.q_proj.bias 24\n"
            "model.layers.0.self_attn.k_proj.weight 12x8\n"
            "model.layers.0.self_attn.k_proj.bias 12\n"
            "model.layers.0.self_attn.v_proj.weight 12x8\n"
            "model.layers.0.self_attn.v_proj.bias 12\n"
            "model.layers.0.self_attn.o_proj.weight 8x24\n"
            "model.layers.0.self_attn.o_proj.bias 8\n"
            "model.layers.0.mlp.gate_proj.weight 12x8\n"
            "model.layers.0.mlp.gate_proj.bias 12\n"
            "model.layers.0.mlp.up_proj.weight 12x8\n"
            "model.layers.0.mlp.up_proj.bias 12\n"
            "model.layers.0.mlp.down_proj.weight 8x12\n"
            "model.layers.0.mlp.down_proj.bias 8\n"
            "model.layers.0.input_layernorm.weight 8\n"
            "model.layers.0.post_attention_layernorm.weight 8\n"
            "model.norm.weight 8\n"
            "lm_head.weight 10x8\n");
}

TEST(TensorNames, entries_say_their_block_and_layer) {
  for (const char* type : {"opt", "llama"}) {
    const ModelConfig config = config_of(type, {{"num_hidden_layers", 3}, {"tie_word_embeddings", true}});
    std::vector<std::string> linear;
    int64_t last = -1;
    for (const ParameterSpec& spec : parameter_table(config)) {
      const bool inside = spec.name.find(".layers.") != std::string::npos;
      EXPECT_EQ(spec.block >= 0, inside) << spec.name;
      if (inside) {
        EXPECT_NE(spec.name.find(fmt::format(".layers.{}.{}.", spec.block, spec.layer)), std::string::npos)
            << spec.name;
        EXPECT_GE(spec.block, last);
        last = spec.block;
      } else {
        EXPECT_NE(spec.name.find(spec.layer + "."), std::string::npos) << spec.name;
      }
      if (spec.linear_weight) {
        EXPECT_EQ(spec.shape.size(), 2u);
        if (spec.block == 1) linear.push_back(spec.layer);
      }
    }
    EXPECT_EQ(last, 2);
    EXPECT_EQ(linear, linear_layers(config));
  }
}

}  // namespace
}  // namespace hesper
