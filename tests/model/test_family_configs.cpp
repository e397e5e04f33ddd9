// What the config.json of each family beyond OPT and LLaMA says, and what of it is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "model/config.h"
#include "model/tensor_names.h"
#include "ops/activation.h"
#include "text/shared_data.h"

namespace hesper {
namespace {

using nlohmann::json;

json with(json config, const json& changes) {
  config.update(changes);
  return config;
}
ModelConfig parse(const json& config) { return parse_config(config, "c.json"); }
std::string refusal(const json& config) {
  return error_of<std::runtime_error>([&] { parse(config); });
}

const json shapes = {{"vocab_size", 100},       {"hidden_size", 64},        {"intermediate_size", 96},
                     {"num_hidden_layers", 12}, {"num_attention_heads", 8}, {"num_key_value_heads", 4}};
json of_type(const char* type, const json& changes = json::object()) {
  return with(with(shapes, {{"model_type", type}}), changes);
}

TEST(FamilyConfig, qwen3_has_heads_of_128_and_norms_of_them) {
  const ModelConfig c = parse(of_type("qwen3"));
  EXPECT_TRUE(c.qk_norm);
  EXPECT_EQ(c.head_dim, 128);
  EXPECT_FALSE(c.attention_bias || c.output_bias);
  const ModelConfig biased = parse(of_type("qwen3", {{"attention_bias", true}}));
  EXPECT_TRUE(biased.attention_bias && biased.output_bias);
}

TEST(FamilyConfig, gpt2_defaults_are_those_of_transformers) {
  const json gpt2 = {{"model_type", "gpt2"}, {"vocab_size", 50257}, {"n_embd", 768}, {"n_head", 12}, {"n_layer", 12}};
  const ModelConfig c = parse(gpt2);
  EXPECT_EQ(c.hidden, 3072);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.attention_scale, 0.125);
  EXPECT_EQ(c.max_positions, 1024);
  EXPECT_EQ(c.activation, Phi::gelu_tanh);
  EXPECT_EQ(c.rotary_dims, 0);
  EXPECT_EQ(c.bos_id, 50256);
  EXPECT_TRUE(c.tied_head);
  EXPECT_EQ(parse(with(gpt2, {{"scale_attn_weights", false}})).attention_scale, 1);
  EXPECT_EQ(refusal(with(gpt2, {{"n_embd", 770}})), "c.json: n_embd = 770 is not a multiple of the 12 attention heads");
  EXPECT_EQ(refusal(with(gpt2, {{"add_cross_attention", true}})),
            "c.json: add_cross_attention = true is not supported");
}

TEST(FamilyConfig, gpt_neox_turns_a_part_of_each_head) {
  const ModelConfig c = parse(of_type("gpt_neox"));
  EXPECT_EQ(c.head_dim, 8);
  EXPECT_EQ(c.rotary_dims, 2);
  EXPECT_TRUE(c.parallel_residual && c.attention_bias && c.output_bias);
  const ModelConfig d = parse(of_type("gpt_neox", {{"rotary_pct", 0.5}, {"rotary_emb_base", 7}}));
  EXPECT_EQ(d.rotary_dims, 4);
  EXPECT_EQ(d.rope_theta, 7);
  EXPECT_EQ(parse(of_type("gpt_neox", {{"rope_parameters", {{"partial_rotary_factor", 1.0}}}})).rotary_dims, 8);
  EXPECT_EQ(refusal(of_type("gpt_neox", {{"rotary_pct", 0.4}})),
            "c.json: 0.4 of the 8 channels of a head are turned, a rotary embedding needs an even number of them");
  EXPECT_EQ(
      refusal(of_type("gpt_neox", {{"rope_scaling", {{"type", "su"}, {"factor", 2}}}})),
      "c.json: rope_scaling.type = \"su\" is not supported (default, linear, dynamic, llama3, yarn, longrope are)");
}

TEST(FamilyConfig, phi3_has_fused_layers) {
  const ModelConfig c = parse(of_type("phi3", {{"sliding_window", 50}}));
  EXPECT_TRUE(c.fused_layers);
  EXPECT_EQ(c.window[11], 50);
  EXPECT_EQ(parse(of_type("phi3")).window[0], 0);
  EXPECT_EQ(refusal(of_type("phi3", {{"auto_map", {{"AutoModelForCausalLM", "modeling_phi3.Phi3ForCausalLM"}}}})), "");
  EXPECT_NE(refusal(of_type("phi3", {{"auto_map", {{"AutoModelForCausalLM", "modeling_x.X"}}}})), "");
  EXPECT_EQ(linear_layers(c),
            (std::vector<std::string>{"self_attn.o_proj", "self_attn.qkv_proj", "mlp.gate_up_proj", "mlp.down_proj"}));
  EXPECT_EQ(refusal(of_type("phi3", {{"rope_scaling", {{"type", "yarn"}}}})),
            "c.json: rope_scaling.type = \"yarn\" is not supported (default, longrope are)");
  EXPECT_NE(refusal(of_type("phi3", {{"rope_scaling", {{"type", "longrope"}}}})).find("short_factor is absent"),
            std::string::npos);
}

TEST(FamilyConfig, gemma_1_is_llama_but_for_gains_and_embeddings) {
  const ModelConfig c = parse(of_type("gemma", {{"hidden_act", "gelu"}}));
  EXPECT_EQ(c.family, Family::llama);
  EXPECT_TRUE(c.gains_less_one && c.tied_head);
  EXPECT_EQ(c.activation, Phi::gelu_tanh);
  EXPECT_EQ(c.head_dim, 256);
  EXPECT_EQ(c.max_positions, 8192);
  EXPECT_EQ(c.bos_id, 2);
  EXPECT_FALSE(parse(of_type("llama")).gains_less_one);
  EXPECT_NE(refusal(of_type("gemma", {{"use_bidirectional_attention", true}})), "");
}

TEST(FamilyConfig, gemma2_alternates_windows_and_caps_scores_and_logits) {
  const ModelConfig c = parse(of_type("gemma2"));
  EXPECT_EQ(c.window[0], 4096);
  EXPECT_EQ(c.window[1], 0);
  EXPECT_EQ(c.attention_softcap, 50);
  EXPECT_EQ(c.logits_softcap, 30);
  EXPECT_EQ(c.head_dim, 256);
  EXPECT_EQ(c.attention_scale, 0.0625);
  EXPECT_EQ(c.activation, Phi::gelu_tanh);
  EXPECT_TRUE(c.tied_head);
  EXPECT_EQ(parse(of_type("gemma2", {{"final_logit_softcapping", nullptr}})).logits_softcap, 0);
  EXPECT_EQ(refusal(of_type("gemma2", {{"use_bidirectional_attention", true}})),
            "c.json: use_bidirectional_attention = true is not supported");
}

TEST(FamilyConfig, gemma3_has_two_rotary_bases) {
  const ModelConfig c = parse(of_type("gemma3_text", {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}}}));
  EXPECT_EQ(c.rope_theta, 1e6);
  EXPECT_EQ(c.local_rope_theta, 1e4);
  EXPECT_EQ(c.window[4], 4096);
  EXPECT_EQ(c.window[5], 0);
  EXPECT_EQ(c.logits_softcap, 0);
  EXPECT_TRUE(c.qk_norm);
  const auto local = rotary_angles(c, 10, 0).inverse_frequencies, global = rotary_angles(c, 10, 5).inverse_frequencies;
  EXPECT_EQ(local[0], 1);
  EXPECT_EQ(global[0], 0.125);
  EXPECT_DOUBLE_EQ(local[64], std::pow(1e4, -0.5));
  EXPECT_DOUBLE_EQ(global[64], std::pow(1e6, -0.5) / 8);
  const json newer = {{"full_attention", {{"rope_type", "default"}, {"rope_theta", 5.0}}},
                      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 3.0}}}};
  const ModelConfig d = parse(of_type("gemma3_text", {{"rope_parameters", newer}}));
  EXPECT_EQ(d.rope_theta, 5);
  EXPECT_EQ(d.local_rope_theta, 3);
}

TEST(FamilyConfig, multimodal_checkpoints_are_their_text_config) {
  const json gemma = {{"model_type", "gemma3"},
                      {"architectures", {"Gemma3ForConditionalGeneration"}},
                      {"vision_config", {{"hidden_size", 3}}},
                      {"text_config", of_type("gemma3_text")}};
  const ModelConfig c = parse(gemma);
  EXPECT_EQ(c.family, Family::gemma);
  EXPECT_TRUE(c.language_part);
  EXPECT_EQ(parse({{"model_type", "llama4"}, {"text_config", of_type("llama4_text")}}).family, Family::llama4);
  EXPECT_EQ(refusal({{"model_type", "llama4"}}),
            "c.json: text_config is absent and is needed: the language part of a multimodal model");
  EXPECT_EQ(refusal({{"model_type", "llama4"}, {"text_config", of_type("llama")}}),
            "c.json: text_config.model_type = \"llama\" is not supported (llama4_text is)");
  EXPECT_EQ(refusal({{"model_type", "llama4"}, {"text_config", of_type("llama4_text", {{"hidden_size", 0}})}}),
            "c.json: text_config.hidden_size = 0 is not an integer from 1 to 1048576");
}

TEST(FamilyConfig, llama4_says_block_by_block_what_it_is) {
  const json scout = of_type("llama4_text", {{"num_local_experts", 2}, {"attention_chunk_size", 16}});
  const ModelConfig c = parse(scout);
  EXPECT_EQ(c.head_dim, 128);
  EXPECT_EQ(c.experts, 2);
  EXPECT_EQ(c.experts_per_token, 1);
  EXPECT_EQ(c.dense_hidden, 16384);
  EXPECT_EQ(c.rope_theta, 500000);
  EXPECT_TRUE(c.qk_norm && c.temperature);
  EXPECT_TRUE(c.rotary_block[2] && c.chunked[2] && c.moe[0] && c.moe[11]);
  EXPECT_FALSE(c.rotary_block[3] || c.chunked[3]);
  const ModelConfig maverick =
      parse(with(scout, {{"interleave_moe_layer_step", 2}, {"attn_temperature_tuning", 4}, {"no_rope_layers", {}}}));
  EXPECT_FALSE(maverick.moe[0]);
  EXPECT_TRUE(maverick.moe[1] && maverick.temperature && maverick.rotary_block[0]);
  EXPECT_FALSE(parse(with(scout, {{"attn_temperature_tuning", 0}})).temperature);
  EXPECT_EQ(refusal(with(scout, {{"attention_chunk_size", nullptr}})),
            "c.json: attention_chunk_size is absent and the attention of block 0 is chunked all the same");
  EXPECT_EQ(refusal(with(scout, {{"moe_layers", {12}}})), "c.json: moe_layers = [12] goes beyond the 12 blocks");
  EXPECT_EQ(refusal(with(scout, {{"num_experts_per_tok", 3}})),
            "c.json: num_experts_per_tok = 3 is not an integer from 1 to 2");
  EXPECT_EQ(refusal(with(scout, {{"no_rope_layers", {1, 0}}})),
            "c.json: no_rope_layers = [1,0] is not a list of 12 values");
  EXPECT_EQ(refusal(with(scout, {{"num_local_experts", 4096}, {"num_hidden_layers", 17}})),
            "c.json: num_local_experts = 4096 in 17 blocks are more than 65536 in all");
  const auto layers = linear_layers(c);
  EXPECT_EQ(layers[4], "feed_forward.experts.0.gate_proj");
  EXPECT_EQ(layers[9], "feed_forward.experts.1.down_proj");
  EXPECT_EQ(layers[10], "feed_forward.router");
  EXPECT_EQ(layers.back(), "feed_forward.shared_expert.down_proj");
}

TEST(FamilyConfig, divisors_are_of_gguf_files_alone) {
  const json config = of_type("llama", {{"rope_scaling", {{"rope_type", "divisors"}, {"divisors", {1, 2, 3, 4}}}}});
  EXPECT_EQ(refusal(config),
            "c.json: rope_scaling.rope_type = \"divisors\" is not supported (default, linear, dynamic, llama3, "
            "yarn, longrope are)");
  EXPECT_EQ(parse_config(config, "m.gguf", true).rope.divisors, (std::vector<double>{1, 2, 3, 4}));
}

}  // namespace
}  // namespace hesper
