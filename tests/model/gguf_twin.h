#pragma once
// A model folder written as a GGUF file, for tests that hold the two against each other.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/gguf_names.h"
#include "files/gguf_bytes.h"
#include "model/config.h"

namespace hesper {

// Row (h, half, i) of Hugging Face's order to row (h, i, half) of llama.cpp's, one row at a time.
inline at::Tensor permuted(const at::Tensor& rows, int64_t heads) {
  const int64_t each = rows.size(0) / heads;
  at::Tensor out = at::empty_like(rows);
  for (int64_t row = 0; row < rows.size(0); ++row) {
    const int64_t h = row / each, half = row % each / (each / 2), i = row % (each / 2);
    out[h * each + 2 * i + half].copy_(rows[row]);
  }
  return out;
}

inline std::vector<std::string> gguf_metadata(const ModelConfig& c) {
  using namespace gguf_bytes;
  const auto size = [](const char* key, int64_t value) { return u32(key, static_cast<uint32_t>(value)); };
  return {string("general.architecture", "llama"),
          size("llama.vocab_size", c.vocab),
          size("llama.context_length", c.max_positions),
          size("llama.embedding_length", c.width),
          size("llama.block_count", c.blocks),
          size("llama.feed_forward_length", c.hidden),
          size("llama.attention.head_count", c.heads),
          size("llama.attention.head_count_kv", c.kv_heads),
          size("llama.attention.key_length", c.head_dim),
          size("llama.attention.value_length", c.head_dim),
          f32("llama.attention.layer_norm_rms_epsilon", static_cast<float>(c.norm_eps)),
          f32("llama.rope.freq_base", static_cast<float>(c.rope_theta))};
}

// All tensors in float32; `more` goes behind the metadata, `extra` are tensors besides.
inline std::string gguf_twin(const Checkpoint& checkpoint, const ModelConfig& config,
                             const std::vector<std::string>& more = {},
                             const std::vector<std::pair<std::string, at::Tensor>>& extra = {}) {
  using namespace gguf_bytes;
  std::vector<std::string> metadata = gguf_metadata(config), tensors;
  metadata.insert(metadata.end(), more.begin(), more.end());
  std::string data;
  const auto add = [&](const std::string& name, const at::Tensor& values) {
    const at::Tensor stored = values.to(at::kFloat).contiguous();
    tensors.push_back(tensor(name, {stored.sizes().rbegin(), stored.sizes().rend()}, 0, data.size()));
    data.append(static_cast<const char*>(stored.const_data_ptr()), stored.nbytes());
    data.resize((data.size() + 31) / 32 * 32, '\0');
  };
  for (const std::string& name : checkpoint.names()) {
    const bool q = name.find("q_proj") != std::string::npos, k = name.find("k_proj") != std::string::npos;
    const at::Tensor values = checkpoint.tensor(name);
    add(gguf_name(name), q ? permuted(values, config.heads) : k ? permuted(values, config.kv_heads) : values);
  }
  for (const auto& [name, values] : extra) add(name, values);
  return file(metadata, tensors, data);
}

}  // namespace hesper
