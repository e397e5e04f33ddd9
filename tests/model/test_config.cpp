#include "model/config.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

#include "files/read_file.h"
#include "ops/activation.h"
#include "text/shared_data.h"

namespace hesper {
namespace {

using nlohmann::json;

const json opt = {{"model_type", "opt"}, {"vocab_size", 50272},       {"hidden_size", 768},
                  {"ffn_dim", 3072},     {"num_attention_heads", 12}, {"num_hidden_layers", 12}};
const json llama = {{"model_type", "llama"},    {"vocab_size", 32000},      {"hidden_size", 64},
                    {"intermediate_size", 172}, {"num_attention_heads", 4}, {"num_hidden_layers", 3}};

json with(json config, const json& changes) {
  config.update(changes);
  return config;
}

ModelConfig parse(const json& config) { return parse_config(config, "c.json"); }

std::string refusal(const json& config) {
  return error_of<std::runtime_error>([&] { parse(config); });
}

TEST(Config, opt_defaults_are_those_of_transformers) {
  const ModelConfig c = parse(opt);
  EXPECT_EQ(c.family, Family::opt);
  EXPECT_EQ(c.vocab, 50272);
  EXPECT_EQ(c.width, 768);
  EXPECT_EQ(c.heads, 12);
  EXPECT_EQ(c.kv_heads, 12);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.hidden, 3072);
  EXPECT_EQ(c.blocks, 12);
  EXPECT_EQ(c.max_positions, 2048);
  EXPECT_EQ(c.norm_eps, 1e-5);
  EXPECT_EQ(c.activation, Phi::relu);
  EXPECT_TRUE(c.tied_head && c.norm_before && c.final_norm && c.bias && c.norm_affine);
  EXPECT_EQ(c.embed_dim, 768);
  EXPECT_EQ(c.bos_id, 2);
  EXPECT_EQ(c.eos_ids, std::vector<int64_t>{2});
}

TEST(Config, opt_350m_is_post_norm_with_projections) {
  const ModelConfig c = parse(with(opt, {{"hidden_size", 1024},
                                         {"num_attention_heads", 16},
                                         {"word_embed_proj_dim", 512},
                                         {"do_layer_norm_before", false}}));
  EXPECT_EQ(c.embed_dim, 512);
  EXPECT_FALSE(c.norm_before);
  EXPECT_FALSE(c.final_norm);
  EXPECT_FALSE(parse(with(opt, {{"_remove_final_layer_norm", true}})).final_norm);
  EXPECT_TRUE(parse(with(opt, {{"_remove_final_layer_norm", true}})).norm_before);
}

TEST(Config, llama_defaults_are_those_of_transformers) {
  const ModelConfig c = parse(llama);
  EXPECT_EQ(c.family, Family::llama);
  EXPECT_EQ(c.kv_heads, 4);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.embed_dim, 64);
  EXPECT_EQ(c.max_positions, 2048);
  EXPECT_EQ(c.norm_eps, 1e-6);
  EXPECT_EQ(c.activation, Phi::silu);
  EXPECT_FALSE(c.tied_head || c.attention_bias || c.mlp_bias);
  EXPECT_EQ(c.rope_theta, 10000.0);
  EXPECT_EQ(c.rope.type, RopeType::standard);
  EXPECT_EQ(c.bos_id, 1);
  EXPECT_EQ(c.eos_ids, std::vector<int64_t>{2});
  // null means the default, as in transformers; except for token ids, where it means none
  const ModelConfig n =
      parse(with(llama, {{"head_dim", nullptr}, {"num_key_value_heads", nullptr}, {"bos_token_id", nullptr}}));
  EXPECT_EQ(n.head_dim, 16);
  EXPECT_EQ(n.kv_heads, 4);
  EXPECT_FALSE(n.bos_id.has_value());
  EXPECT_EQ(parse(with(llama, {{"eos_token_id", {128001, 128008}}})).eos_ids, (std::vector<int64_t>{128001, 128008}));
  EXPECT_EQ(parse(with(llama, {{"head_dim", 6}})).head_dim, 6);      // H D is not C
  EXPECT_EQ(parse(with(llama, {{"pretraining_tp", 2}})).width, 64);  // the same sums, split
}

TEST(Config, mistral_is_a_llama_with_a_window) {
  const json mistral =
      with(llama, {{"model_type", "mistral"}, {"num_attention_heads", 16}, {"sliding_window", nullptr}});
  const ModelConfig c = parse(mistral);
  EXPECT_EQ(c.family, Family::llama);
  EXPECT_EQ(c.kv_heads, 8);
  EXPECT_EQ(c.max_positions, 131072);
  EXPECT_EQ(c.window, (std::vector<int64_t>{0, 0, 0}));
  EXPECT_EQ(parse(with(mistral, {{"sliding_window", 7}})).window, (std::vector<int64_t>{7, 7, 7}));
  json absent = mistral;
  absent.erase("sliding_window");
  EXPECT_EQ(parse(absent).window, (std::vector<int64_t>{4096, 4096, 4096}));
  EXPECT_EQ(refusal(with(mistral, {{"attention_bias", true}})), "c.json: attention_bias = true is not supported");
  EXPECT_EQ(refusal(with(mistral, {{"sliding_window", 0}})),
            "c.json: sliding_window = 0 is not an integer from 1 to 2147483648");
  EXPECT_EQ(parse(with(mistral, {{"num_key_value_heads", nullptr}})).kv_heads, 16);  // null is not absent
}

TEST(Config, qwen2_is_a_llama_with_three_biases) {
  json qwen = with(llama, {{"model_type", "qwen2"}, {"num_attention_heads", 32}, {"sliding_window", 4096}});
  const ModelConfig c = parse(qwen);
  EXPECT_EQ(c.family, Family::llama);
  EXPECT_TRUE(c.attention_bias);
  EXPECT_FALSE(c.output_bias || c.qk_norm);
  EXPECT_EQ(c.kv_heads, 32);
  EXPECT_EQ(c.max_positions, 32768);
  EXPECT_FALSE(c.bos_id.has_value());
  EXPECT_EQ(c.window, (std::vector<int64_t>{0, 0, 0}));
  const json sliding = with(qwen, {{"use_sliding_window", true}, {"max_window_layers", 2}});
  EXPECT_EQ(parse(sliding).window, (std::vector<int64_t>{0, 0, 4096}));
  const json types = {"sliding_attention", "full_attention", "sliding_attention"};
  EXPECT_EQ(parse(with(sliding, {{"layer_types", types}})).window, (std::vector<int64_t>{4096, 0, 4096}));
  EXPECT_NE(refusal(with(qwen, {{"layer_types", types}})).find("no sliding window is set"), std::string::npos);
  EXPECT_EQ(refusal(with(sliding, {{"layer_types", {"full_attention", "linear_attention", "full_attention"}}})),
            "c.json: layer_types = [\"full_attention\",\"linear_attention\",\"full_attention\"] is not supported "
            "(\"full_attention\", \"sliding_attention\" are)");
  EXPECT_EQ(refusal(with(qwen, {{"attention_bias", false}})), "c.json: attention_bias = false is not supported");
}

TEST(Config, activations_by_every_supported_name) {
  const std::vector<std::pair<const char*, Phi>> names = {
      {"relu", Phi::relu},        {"gelu", Phi::gelu},
      {"gelu_python", Phi::gelu}, {"gelu_new", Phi::gelu_tanh},
      {"silu", Phi::silu},        {"gelu_pytorch_tanh", Phi::gelu_tanh},
      {"swish", Phi::silu},       {"gelu_python_tanh", Phi::gelu_tanh}};
  for (const auto& [name, phi] : names) {
    EXPECT_EQ(parse(with(opt, {{"activation_function", name}})).activation, phi) << name;
    EXPECT_EQ(parse(with(llama, {{"hidden_act", name}})).activation, phi) << name;
  }
  for (const char* name :
       {"gelu_fast", "quick_gelu", "gelu_10", "relu2", "relu6", "tanh", "sigmoid", "mish", "GELU", ""}) {
    const char* supported = "is not supported (relu, gelu, gelu_new, gelu_pytorch_tanh, silu are)";
    EXPECT_EQ(refusal(with(opt, {{"activation_function", name}})),
              fmt::format("c.json: activation_function = \"{}\" {}", name, supported));
    EXPECT_EQ(refusal(with(llama, {{"hidden_act", name}})),
              fmt::format("c.json: hidden_act = \"{}\" {}", name, supported));
  }
}

TEST(Config, rotary_parameters_in_both_spellings) {
  const json l3 = {{"factor", 8.0},
                   {"low_freq_factor", 1.0},
                   {"high_freq_factor", 4.0},
                   {"original_max_position_embeddings", 8192},
                   {"rope_type", "llama3"}};
  const ModelConfig older = parse(with(llama, {{"rope_theta", 500000.0}, {"rope_scaling", l3}}));
  const ModelConfig newer = parse(with(llama, {{"rope_parameters", with(l3, {{"rope_theta", 500000.0}})}}));
  for (const ModelConfig& c : {older, newer}) {
    EXPECT_EQ(c.rope_theta, 500000.0);
    EXPECT_EQ(c.rope.type, RopeType::llama3);
    EXPECT_EQ(c.rope.factor, 8.0);
    EXPECT_EQ(c.rope.low_freq_factor, 1.0);
    EXPECT_EQ(c.rope.high_freq_factor, 4.0);
    EXPECT_EQ(c.rope.original_max_positions, 8192);
  }
  EXPECT_EQ(parse(with(llama, {{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}})).rope.type, RopeType::linear);
  EXPECT_EQ(parse(with(llama, {{"rope_scaling", {{"type", "dynamic"}, {"factor", 2}}}})).rope.factor, 2.0);
  EXPECT_EQ(parse(with(llama, {{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 7.0}}}})).rope_theta, 7.0);
  json no_length = l3;
  no_length.erase("original_max_position_embeddings");
  EXPECT_EQ(parse(with(llama, {{"rope_scaling", no_length}})).rope.original_max_positions, 2048);
}

TEST(Config, refuses_rotary_parameters_by_name) {
  const auto scaling = [](const json& rope) { return refusal(with(llama, {{"rope_scaling", rope}})); };
  for (const char* type : {"su", "mrope", "proportional", "divisors"}) {
    EXPECT_EQ(scaling({{"rope_type", type}, {"factor", 2}}),
              fmt::format("c.json: rope_scaling.rope_type = \"{}\" is not supported (default, linear, dynamic, llama3, "
                          "yarn, longrope are)",
                          type));
  }
  EXPECT_EQ(scaling({{"type", "linear"}, {"factor", 2}, {"attention_factor", 1.5}}),
            "c.json: rope_scaling.attention_factor = 1.5 is not supported");
  EXPECT_EQ(scaling({{"type", "yarn"}, {"factor", 2}, {"attention_factor", 0}}),
            "c.json: rope_scaling.attention_factor = 0 is not a positive number");
  EXPECT_EQ(scaling({{"type", "yarn"}, {"factor", 2}, {"rope_theta", 1}}),
            "c.json: rope_scaling.type = \"yarn\" with rope_theta = 1 is not supported (above 1 is)");
  EXPECT_EQ(scaling({{"type", "longrope"}, {"short_factor", {1}}}),
            "c.json: rope_scaling.short_factor = [1] is not a list of 8 numbers from 1e-6 to 1e6");
  EXPECT_EQ(scaling({{"type", "linear"}}), "c.json: rope_scaling.factor is missing");
  EXPECT_EQ(scaling({{"type", "linear"}, {"factor", -1}}), "c.json: rope_scaling.factor = -1 is not a positive number");
  EXPECT_EQ(scaling({{"type", "linear"}, {"rope_type", "dynamic"}, {"factor", 2}}),
            "c.json: rope_scaling.type = \"linear\" is not supported");
  EXPECT_EQ(scaling("linear"), "c.json: rope_scaling is \"linear\", expected an object");
  EXPECT_EQ(scaling({{"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 4}, {"high_freq_factor", 2}}),
            "c.json: rope_scaling.high_freq_factor = 2 is below low_freq_factor = 4");
  EXPECT_EQ(
      refusal(with(llama, {{"rope_parameters", {{"full_attention", {{"rope_type", "default"}}}}}})),
      "c.json: rope_parameters.full_attention = {\"rope_type\":\"default\"} is not supported: rotary parameters by "
      "type of layer");
  EXPECT_EQ(refusal(with(llama, {{"rope_parameters", {{"partial_rotary_factor", 0.5}}}})),
            "c.json: rope_parameters.partial_rotary_factor = 0.5 is not supported");
  EXPECT_EQ(refusal(with(llama, {{"rope_theta", 0}})), "c.json: rope_theta = 0 is not a positive number");
}

TEST(Config, refuses_unsupported_mathematics_by_name) {
  const json changes = {
      {"quantization_config", {{"bits", 4}}},
      {"compression_config", {{"format", "x"}}},
      {"auto_map", {{"AutoModelForCausalLM", "modeling_x.X"}}},
      {"sliding_window", 128},
      {"use_sliding_window", true},
      {"attention_chunk_size", 8192},
      {"attn_logit_softcapping", 50.0},
      {"final_logit_softcapping", 30.0},
      {"query_pre_attn_scalar", 256},
      {"attention_multiplier", 0.0078125},
      {"residual_multiplier", 0.22},
      {"embedding_multiplier", 12.0},
      {"logits_scaling", 8.0},
      {"logit_scale", 0.0625},
      {"scale_emb", 12},
      {"scale_depth", 1.4},
      {"scale_embeddings", true},
      {"learned_embeddings", false},
      {"alibi", true},
      {"partial_rotary_factor", 0.5},
      {"rotary_pct", 0.25},
      {"rope_interleaved", true},
      {"no_rope_layers", {1, 1, 0}},
      {"no_rope_layer_interval", 4},
      {"qk_norm", true},
      {"use_qk_norm", true},
      {"qk_layernorm", true},
      {"num_experts", 8},
      {"num_local_experts", 8},
      {"n_routed_experts", 64},
      {"parallel_attn", true},
      {"use_parallel_residual", true},
      {"is_encoder_decoder", true},
      {"add_cross_attention", true},
      {"pruned_heads", {{"0", {1}}}},
      {"layer_types", {"full_attention", "sliding_attention"}},
  };
  for (const auto& [key, value] : changes.items()) {
    for (const json& base : {opt, llama}) {
      const std::string message = refusal(with(base, {{key, value}}));
      EXPECT_TRUE(message.starts_with(fmt::format("c.json: {} = ", key))) << key << ": " << message;
      EXPECT_NE(message.find("not supported"), std::string::npos) << message;
      EXPECT_EQ(refusal(with(base, {{key, nullptr}})), "") << key;
    }
  }
  EXPECT_EQ(refusal(with(llama, {{"partial_rotary_factor", 1.0},
                                 {"use_sliding_window", false},
                                 {"num_experts", 1},
                                 {"layer_types", {"full_attention"}},
                                 {"pruned_heads", json::object()}})),
            "");
  EXPECT_EQ(refusal(with(opt, {{"layer_norm_eps", 1e-6}})), "c.json: layer_norm_eps = 1e-06 is not supported");
}

TEST(Config, refuses_unknown_models) {
  for (const char* type : {"mixtral", "qwen3_moe", "LLAMA", ""}) {
    EXPECT_EQ(
        refusal(with(llama, {{"model_type", type}})),
        fmt::format("c.json: model_type = \"{}\" is not supported (gemma, gemma2, gemma3, gemma3_text, gpt2, gpt_neox, "
                    "llama, llama4, llama4_text, mistral, opt, phi3, qwen2, qwen3 are)",
                    type));
  }
  EXPECT_EQ(refusal(json::object()), "c.json: model_type is missing");
  EXPECT_EQ(refusal(json::array()), "c.json: not a JSON object");
  EXPECT_EQ(
      refusal(with(llama, {{"architectures", {"LlamaForSequenceClassification"}}})),
      "c.json: architectures = [\"LlamaForSequenceClassification\"] is not supported (causal language models are)");
  EXPECT_NE(refusal(with(llama, {{"architectures", {"OPTForCausalLM"}}})), "");
  for (const char* name : {"LlamaForCausalLM", "LLaMAForCausalLM", "LlamaModel"}) {
    EXPECT_EQ(refusal(with(llama, {{"architectures", {name}}})), "");
  }
}

TEST(Config, refuses_values_out_of_range) {
  for (const char* key : {"vocab_size", "hidden_size", "ffn_dim", "num_attention_heads", "num_hidden_layers"}) {
    json absent = opt;
    absent.erase(key);
    EXPECT_EQ(refusal(absent), fmt::format("c.json: {} is missing", key));
  }
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers",
                          "num_key_value_heads", "head_dim", "max_position_embeddings"}) {
    for (const json& value :
         {json(0), json(-1), json(1LL << 40), json(UINT64_MAX), json(64.0), json("64"), json(true)}) {
      const std::string message = refusal(with(llama, {{key, value}}));
      EXPECT_TRUE(message.starts_with(fmt::format("c.json: {} = {} is not an integer from 1 to ", key, value.dump())))
          << message;
    }
  }
  EXPECT_EQ(refusal(with(opt, {{"hidden_size", 770}})),
            "c.json: hidden_size = 770 is not a multiple of the 12 attention heads");
  EXPECT_EQ(refusal(with(llama, {{"num_key_value_heads", 3}})),
            "c.json: num_key_value_heads = 3 does not divide num_attention_heads = 4");
  EXPECT_EQ(refusal(with(llama, {{"head_dim", 15}})), "c.json: head_dim = 15, a rotary embedding needs an even one");
  EXPECT_EQ(refusal(with(llama, {{"rms_norm_eps", -1e-6}})), "c.json: rms_norm_eps = -1e-06 is not a positive number");
  EXPECT_EQ(refusal(with(llama, {{"rms_norm_eps", "1e-6"}})),
            "c.json: rms_norm_eps = \"1e-6\" is not a positive number");
  EXPECT_EQ(refusal(with(llama, {{"tie_word_embeddings", 1}})), "c.json: tie_word_embeddings = 1 is not true or false");
  EXPECT_EQ(refusal(with(llama, {{"hidden_act", 1}})), "c.json: hidden_act = 1 is not a string");
  EXPECT_EQ(refusal(with(llama, {{"bos_token_id", 1.5}})),
            "c.json: bos_token_id = 1.5 is not a token id or a list of them");
}

TEST(Config, reads_every_golden_model) {
  int models = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(HESPER_SOURCE_DIR "/tests/golden")) {
    if (entry.path().filename() != "config.json") continue;
    const ModelConfig c = parse_config(json::parse(read_file(entry.path())), entry.path());
    EXPECT_GT(c.width, 0);
    ++models;
  }
  EXPECT_GE(models, 5);
}

TEST(Config, reads_or_refuses_the_fuzzing_seeds) {
  int seeds = 0;
  for (const auto& file : std::filesystem::directory_iterator(HESPER_SOURCE_DIR "/fuzz/corpus/config")) {
    const json config = json::parse(read_file(file.path()));
    const std::string message = refusal(config);
    EXPECT_EQ(message.empty(), file.path().filename().string().starts_with("good_")) << file.path() << message;
    EXPECT_FALSE(message.starts_with("other")) << message;
    ++seeds;
  }
  EXPECT_GE(seeds, 5);
}

}  // namespace
}  // namespace hesper
