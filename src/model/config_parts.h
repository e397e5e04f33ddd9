#pragma once
// What the readers of families.h share.
#include <optional>

#include "model/config.h"
#include "model/config_reader.h"

namespace hesper {

// Far above every published model, far below what could overflow a product of two of them.
constexpr int64_t max_vocab = int64_t{1} << 24;
constexpr int64_t max_width = int64_t{1} << 20;
constexpr int64_t max_heads = int64_t{1} << 16;
constexpr int64_t max_blocks = int64_t{1} << 13;
constexpr int64_t max_hidden = int64_t{1} << 24;
constexpr int64_t max_position_count = int64_t{1} << 31;
constexpr int64_t max_experts = int64_t{1} << 12;

Phi read_activation(const ConfigReader& json, const char* key, const char* fallback);

// Names of the shapes; `hidden` is left alone where it is null.
struct ShapeKeys {
  const char* width = "hidden_size";
  const char* heads = "num_attention_heads";
  const char* blocks = "num_hidden_layers";
  const char* hidden = "intermediate_size";
  std::optional<int64_t> default_vocab{}, default_heads{};
};
// model_type, vocab, width, heads, hidden, blocks, and every block's attention to all that is before it.
void read_shapes(const ConfigReader& json, const ShapeKeys& keys, ModelConfig& config);
int64_t width_over_heads(const ConfigReader& json, const ModelConfig& config, const char* width_key = "hidden_size");
// num_key_value_heads and head_dim, of width/heads where no default is given.
void read_heads(const ConfigReader& json, int64_t default_kv_heads, std::optional<int64_t> default_head_dim,
                ModelConfig& config);
void read_token_ids(const ConfigReader& json, std::optional<int64_t> bos, std::optional<int64_t> eos,
                    ModelConfig& config);

struct RopeKeys {
  const char* theta = "rope_theta";
  double default_theta = 10000;
  const char* partial = nullptr;  // where a part of a head may be turned
  double default_partial = 1;
  std::optional<int64_t> own_original{};  // Phi-3: original_max_position_embeddings where it is not beside the object
};
// The rotary parameters live in rope_scaling (older, beside a rope_theta) or in rope_parameters (newer, rope_theta
// inside). transformers takes rope_scaling first, and a rope_theta inside before the one outside. rope.cpp.
void read_rope(const ConfigReader& json, const RopeKeys& keys, ModelConfig& config);
// The object itself.
void read_rope_object(const ConfigReader& json, const ConfigReader& rope, const RopeKeys& keys, ModelConfig& config);

// Keys that a token of each block sees: those of `sliding_window` where layer_types says "sliding_attention", or where
// it is absent and `sliding(block)` is true.
void read_windows(const ConfigReader& json, std::optional<int64_t> sliding_window, bool (*sliding)(int64_t, int64_t),
                  int64_t pattern, ModelConfig& config);

}  // namespace hesper
