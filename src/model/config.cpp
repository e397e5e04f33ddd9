#include "model/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "model/config_reader.h"
#include "model/families.h"

namespace hesper {
namespace {

using nlohmann::json;

struct ModelType {
  std::vector<std::string> stems;  // how its classes begin: STEMForCausalLM, STEMModel
  ModelConfig (*parse)(const ConfigReader&);
  std::vector<std::string> reads;  // fields of the table below that its parser reads itself
};

const std::map<std::string, ModelType>& model_types() {
  static const std::map<std::string, ModelType> types = {
      {"gemma", {{"Gemma"}, parse_llama_config, {}}},
      {"gemma2",
       {{"Gemma2"},
        parse_gemma_config,
        {"sliding_window", "layer_types", "attn_logit_softcapping", "final_logit_softcapping",
         "query_pre_attn_scalar"}}},
      {"gemma3_text",
       {{"Gemma3", "Gemma3Text"},
        parse_gemma_config,
        {"sliding_window", "layer_types", "attn_logit_softcapping", "final_logit_softcapping",
         "query_pre_attn_scalar"}}},
      {"gpt2", {{"GPT2", "GPT2LMHead"}, parse_gpt2_config, {}}},
      {"gpt_neox", {{"GPTNeoX"}, parse_gpt_neox_config, {"rotary_pct", "use_parallel_residual"}}},
      {"llama", {{"Llama", "LLaMA"}, parse_llama_config, {}}},
      {"llama4_text",
       {{"Llama4", "Llama4Text"},
        parse_llama4_config,
        {"attention_chunk_size", "no_rope_layers", "no_rope_layer_interval", "use_qk_norm", "num_local_experts",
         "layer_types"}}},
      {"mistral", {{"Mistral"}, parse_llama_config, {"sliding_window"}}},
      {"opt", {{"OPT"}, parse_opt_config, {}}},
      {"phi3", {{"Phi3"}, parse_llama_config, {"sliding_window", "partial_rotary_factor", "auto_map"}}},
      {"qwen2", {{"Qwen2"}, parse_llama_config, {"sliding_window", "use_sliding_window", "layer_types"}}},
      {"qwen3", {{"Qwen3"}, parse_llama_config, {"sliding_window", "use_sliding_window", "layer_types"}}},
  };
  return types;
}

// Model types whose language part is the model of text_config.
const std::map<std::string, std::string>& multimodal_types() {
  static const std::map<std::string, std::string> types = {{"gemma3", "gemma3_text"}, {"llama4", "llama4_text"}};
  return types;
}

// Fields that other models (or forks of these) use to change the mathematics, with the values that change nothing.
// transformers' own code of a model that does not know them would ignore most in silence.
void refuse_unsupported(const ConfigReader& config, const std::vector<std::string>& reads) {
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
      {"use_bidirectional_attention", {false}},
      {"is_encoder_decoder", {false}},
      {"add_cross_attention", {false}},
      {"pruned_heads", {json::object()}},
  };
  const auto read = [&](const char* key) { return std::find(reads.begin(), reads.end(), key) != reads.end(); };
  for (const auto& [key, values] : neutral)
    if (!read(key)) config.only(key, values);

  if (const json* types = config.find("layer_types"); types != nullptr && !read("layer_types")) {
    const bool full = types->is_array() && std::all_of(types->begin(), types->end(),
                                                       [](const json& type) { return type == "full_attention"; });
    if (!full) config.refuse("layer_types", "is not supported (full_attention alone is)");
  }
}

// "OPTForCausalLM" and the bare "OPTModel"; LLaMA's first checkpoints wrote "LLaMA", GPT-2's class is GPT2LMHeadModel.
void check_architectures(const ConfigReader& config, const std::vector<std::string>& stems) {
  const json* names = config.find("architectures");
  if (names == nullptr) return;
  if (!names->is_array()) config.refuse("architectures", "is not a list");
  for (const json& name : *names) {
    const bool supported = std::any_of(stems.begin(), stems.end(), [&](const std::string& stem) {
      return name == stem + "ForCausalLM" || name == stem + "Model";
    });
    if (!supported) config.refuse("architectures", "is not supported (causal language models are)");
  }
}

ModelConfig parse_text_config(const ConfigReader& config) {
  const std::string name = config.text("model_type");
  const auto type = model_types().find(name);
  if (type == model_types().end()) {
    std::string known;
    for (const std::string& each : supported_model_types()) known += (known.empty() ? "" : ", ") + each;
    config.refuse("model_type", fmt::format("is not supported ({} are)", known));
  }
  check_architectures(config, type->second.stems);
  refuse_unsupported(config, type->second.reads);
  return type->second.parse(config);
}

}  // namespace

std::vector<std::string> supported_model_types() {
  std::vector<std::string> names;
  for (const auto& [name, type] : model_types()) names.push_back(name);
  for (const auto& [name, text] : multimodal_types()) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

ModelConfig parse_config(const json& object, const std::string& file, bool from_gguf) {
  const ConfigReader config(object, file, "", from_gguf);
  const auto multimodal = multimodal_types().find(config.text("model_type", ""));
  if (multimodal == multimodal_types().end()) return parse_text_config(config);
  config.only("quantization_config", {});
  const json* text = config.find("text_config");
  if (text == nullptr) config.refuse("text_config", "is needed: the language part of a multimodal model");
  const ConfigReader inner(*text, file, "text_config.");
  if (const std::string type = inner.text("model_type"); type != multimodal->second)
    inner.refuse("model_type", fmt::format("is not supported ({} is)", multimodal->second));
  ModelConfig out = parse_text_config(inner);
  out.language_part = true;
  return out;
}

ModelConfig parse_config(const Checkpoint& checkpoint) {
  return parse_config(checkpoint.config(), checkpoint.config_file(), checkpoint.is_gguf());
}

}  // namespace hesper
