// LLaMA 1 to 3, Gemma 1, Mistral, Qwen 2 and 3, Phi-3: RMS norms, rotary positions, grouped heads, gated MLP.
#include <fmt/format.h>

#include <cmath>

#include "model/build_program.h"

namespace hesper {
namespace {

struct Heads {
  int q, k, v;
};

Heads project(Program& p, const ModelConfig& c, int h, const std::string& attn) {
  if (!c.fused_layers)
    return {p.linear(h, attn + "q_proj"), p.linear(h, attn + "k_proj"), p.linear(h, attn + "v_proj")};
  const int64_t query = c.heads * c.head_dim, key = c.kv_heads * c.head_dim, all = query + 2 * key;
  const int qkv = p.linear(h, attn + "qkv_proj");
  return {p.channels(qkv, all, 0, query), p.channels(qkv, all, query, query + key),
          p.channels(qkv, all, query + key, all)};
}

int gated_mlp(Program& p, const ModelConfig& c, int h, const std::string& mlp) {
  int gate, up;
  if (c.fused_layers) {
    const int both = p.linear(h, mlp + "gate_up_proj");
    gate = p.channels(both, 2 * c.hidden, 0, c.hidden);
    up = p.channels(both, 2 * c.hidden, c.hidden, 2 * c.hidden);
  } else {
    gate = p.linear(h, mlp + "gate_proj");
    up = p.linear(h, mlp + "up_proj");
  }
  return p.linear(p.gated_activation(gate, up, c.activation), mlp + "down_proj");
}

}  // namespace

void write_llama(Program& p, const ModelConfig& c, int64_t seqlen) {
  const RotaryAngles angles = rotary_angles(c, seqlen);

  const auto norm = [&](int x, const std::string& layer, int64_t heads = 1) {
    return p.rms_norm(x, layer, c.norm_eps, heads, c.gains_less_one ? 1 : 0);
  };
  int x = p.token_embedding("model.embed_tokens.weight");
  if (c.gains_less_one) x = p.scale(x, {std::sqrt(static_cast<double>(c.width))});
  for (int64_t i = 0; i < c.blocks; ++i) {
    const std::string block = fmt::format("model.layers.{}.", i), attn = block + "self_attn.";
    int h = norm(x, block + "input_layernorm");
    auto [q, k, v] = project(p, c, h, attn);
    if (c.qk_norm) {
      q = norm(q, attn + "q_norm", c.heads);
      k = norm(k, attn + "k_norm", c.kv_heads);
    }
    q = p.rotary(q, angles, seqlen, c.head_dim);
    k = p.rotary(k, angles, seqlen, c.head_dim);
    x = p.add(x, p.linear(p.attention(q, k, v, attention_shape(c, i)), attn + "o_proj"));
    h = norm(x, block + "post_attention_layernorm");
    x = p.add(x, gated_mlp(p, c, h, block + "mlp."));
  }
  x = norm(x, "model.norm");
  p.head(x, c.tied_head ? "model.embed_tokens.weight" : "lm_head.weight");
}

}  // namespace hesper
