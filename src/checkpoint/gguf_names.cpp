#include "checkpoint/gguf_names.h"

#include <algorithm>
#include <string_view>

namespace hesper {
namespace {

struct Pair {
  std::string_view gguf, hugging_face;
};

constexpr Pair whole[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
};

constexpr Pair layers[] = {
    {"attn_norm", "input_layernorm"}, {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},   {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},    {"ffn_up", "mlp.up_proj"},           {"ffn_down", "mlp.down_proj"},
};

constexpr std::string_view gguf_blocks = "blk.", hugging_face_blocks = "model.layers.";

bool is_number(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// "STEM.weight" or "STEM.bias", and in a block "BLOCKSnumber.STEM.weight": the stem exchanged by the tables.
std::string exchange(const std::string& name, std::string_view Pair::*from, std::string_view Pair::*to,
                     std::string_view blocks_from, std::string_view blocks_to) {
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos) return name;
  const std::string_view suffix = std::string_view(name).substr(dot);
  if (suffix != ".weight" && suffix != ".bias") return name;
  std::string_view stem = std::string_view(name).substr(0, dot);
  std::string start;
  if (stem.starts_with(blocks_from)) {
    stem.remove_prefix(blocks_from.size());
    const size_t end = stem.find('.');
    if (end == std::string_view::npos || !is_number(stem.substr(0, end))) return name;
    start = std::string(blocks_to) + std::string(stem.substr(0, end + 1));
    stem.remove_prefix(end + 1);
    for (const Pair& pair : layers) {
      if (pair.*from == stem) return start + std::string(pair.*to) + std::string(suffix);
    }
    return name;
  }
  for (const Pair& pair : whole) {
    if (pair.*from == stem) return std::string(pair.*to) + std::string(suffix);
  }
  return name;
}

}  // namespace

std::string hugging_face_name(const std::string& gguf) {
  return exchange(gguf, &Pair::gguf, &Pair::hugging_face, gguf_blocks, hugging_face_blocks);
}

std::string gguf_name(const std::string& hugging_face) {
  return exchange(hugging_face, &Pair::hugging_face, &Pair::gguf, hugging_face_blocks, gguf_blocks);
}

}  // namespace hesper
