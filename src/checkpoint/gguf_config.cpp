#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "checkpoint/gguf_file.h"

namespace hesper {
namespace {

constexpr uint64_t most = uint64_t{1} << 31;

// What is read below, and what says nothing about the mathematics.
constexpr std::string_view known_keys[] = {
    "llama.vocab_size",
    "llama.context_length",
    "llama.embedding_length",
    "llama.block_count",
    "llama.feed_forward_length",
    "llama.attention.head_count",
    "llama.attention.head_count_kv",
    "llama.attention.key_length",
    "llama.attention.value_length",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.rope.dimension_count",
    "llama.rope.freq_base",
    "llama.rope.scale_linear",
    "llama.rope.scaling.type",
    "llama.rope.scaling.factor",
    "llama.rope.scaling.original_context_length",
    "llama.rope.scaling.finetuned",
    "llama.expert_count",
    "llama.expert_used_count",
    "llama.tensor_data_layout",
};

void refuse_unsupported(const Gguf& gguf, const GgufFields& fields) {
  if (fields.text("general.architecture") != "llama") {
    fields.refuse("general.architecture", "is not supported (llama is)");
  }
  if (fields.text_or("general.type", "model") != "model") fields.refuse("general.type", "is not supported (model is)");
  if (fields.integer_or("split.count", most, 1) > 1) {
    fields.refuse("split.count", "is not supported: join the parts with llama-gguf-split --merge");
  }
  if (fields.integer_or("general.quantization_version", most, 2) != 2) {
    fields.refuse("general.quantization_version", "is not supported (2 is)");
  }
  for (const auto& [key, value] : gguf.metadata) {
    if (key.starts_with("llama.") && std::ranges::find(known_keys, key) == std::end(known_keys)) {
      fields.fail(printable(key), "is not supported");
    }
  }
  for (const char* key : {"llama.expert_count", "llama.expert_used_count"}) {
    if (fields.integer_or(key, most, 0) != 0) fields.refuse(key, "is not supported: mixture of experts");
  }
  constexpr const char* layout = "llama.tensor_data_layout";
  if (fields.text_or(layout, "Meta AI original pth") != "Meta AI original pth") {
    fields.refuse(layout, "is not supported");
  }
}

// rope_scaling of config.json, or null.
nlohmann::json rope_scaling(const GgufFields& fields, const std::vector<float>& divisors) {
  constexpr const char *type_key = "llama.rope.scaling.type", *factor_key = "llama.rope.scaling.factor",
                       *older_key = "llama.rope.scale_linear";
  const std::string type = fields.text_or(type_key, fields.has(older_key) ? "linear" : "none");
  if (type != "none" && type != "linear") fields.refuse(type_key, "is not supported (none, linear are)");
  const bool linear = type == "linear";
  if (!divisors.empty()) {
    if (linear) fields.fail("rope_freqs.weight", "beside a linear rope scaling is not supported");
    // A JSON number has no way to say NaN or infinity: 0 is refused as they are.
    std::vector<double> numbers(divisors.begin(), divisors.end());
    std::ranges::replace_if(
        numbers, [](double x) { return !std::isfinite(x); }, 0.0);
    return {{"rope_type", "divisors"}, {"divisors", numbers}};
  }
  if (!linear) return nullptr;
  return {{"rope_type", "linear"}, {"factor", fields.number(fields.has(factor_key) ? factor_key : older_key)}};
}

}  // namespace

nlohmann::json gguf_config(const Gguf& gguf, const std::vector<float>& rope_freqs, const std::string& file) {
  const GgufFields fields(gguf, file);
  refuse_unsupported(gguf, fields);
  const auto tensor = [&](std::string_view name) { return std::ranges::find(gguf.tensors, name, &GgufTensor::name); };
  const auto has = [&](std::string_view name) { return tensor(name) != gguf.tensors.end(); };
  if (!has("token_embd.weight")) fields.fail("token_embd.weight", "is missing: a file of a vocabulary alone?");

  const auto embedding = static_cast<uint64_t>(tensor("token_embd.weight")->shape[0]);
  const uint64_t width = fields.integer("llama.embedding_length", most);
  const uint64_t heads = fields.integer("llama.attention.head_count", most);
  if (heads == 0) fields.refuse("llama.attention.head_count", "is not a positive integer");
  const uint64_t head_dim = fields.integer_or("llama.attention.key_length", most, width / heads);
  for (const char* key : {"llama.attention.value_length", "llama.rope.dimension_count"}) {
    if (fields.integer_or(key, most, head_dim) != head_dim) {
      fields.refuse(key, fmt::format("is not the {} dimensions of a head, which is not supported", head_dim));
    }
  }

  nlohmann::json config = {
      {"model_type", "llama"},
      {"hidden_act", "silu"},
      {"vocab_size", fields.integer_or("llama.vocab_size", most, embedding)},
      {"hidden_size", width},
      {"intermediate_size", fields.integer("llama.feed_forward_length", most)},
      {"num_hidden_layers", fields.integer("llama.block_count", most)},
      {"num_attention_heads", heads},
      {"num_key_value_heads", fields.integer_or("llama.attention.head_count_kv", most, heads)},
      {"head_dim", head_dim},
      {"max_position_embeddings", fields.integer("llama.context_length", most)},
      {"rms_norm_eps", fields.number("llama.attention.layer_norm_rms_epsilon")},
      {"rope_theta", fields.has("llama.rope.freq_base") ? fields.number("llama.rope.freq_base") : 10000.0},
      {"rope_scaling", rope_scaling(fields, rope_freqs)},
      {"attention_bias", has("blk.0.attn_q.bias")},
      {"mlp_bias", has("blk.0.ffn_gate.bias")},
      {"tie_word_embeddings", !has("output.weight")},
      {"bos_token_id", nullptr},
      {"eos_token_id", nullptr},
  };
  for (const char* token : {"bos_token_id", "eos_token_id"}) {
    const std::string key = fmt::format("tokenizer.ggml.{}", token);
    if (fields.has(key)) config[token] = fields.integer(key, most);
  }
  return config;
}

}  // namespace hesper
