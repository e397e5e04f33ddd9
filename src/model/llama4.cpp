// LLaMA 4: blocks with a mixture of experts beside dense ones, chunked attention with rotary positions and normed
// queries and keys beside full attention without positions, whose queries grow with the position.
#include <fmt/format.h>

#include <cmath>

#include "model/build_program.h"

namespace hesper {
namespace {

int gated_mlp(Program& p, const ModelConfig& c, int h, const std::string& mlp) {
  const int gate = p.linear(h, mlp + "gate_proj"), up = p.linear(h, mlp + "up_proj");
  return p.linear(p.gated_activation(gate, up, c.activation), mlp + "down_proj");
}

// The shared expert's output and, of each slot, W_down (phi(W_gate s h) * W_up s h) of the chosen expert and its score
// s.
int mixture(Program& p, const ModelConfig& c, int h, const std::string& block) {
  const std::string root = block + "feed_forward.";
  const auto layers = [&](const char* layer) {
    std::vector<std::string> names;
    for (int64_t e = 0; e < c.experts; ++e) names.push_back(fmt::format("{}experts.{}.{}", root, e, layer));
    return names;
  };
  int y = gated_mlp(p, c, h, root + "shared_expert.");
  const int logits = p.linear(h, root + "router");
  for (int64_t slot = 0; slot < c.experts_per_token; ++slot) {
    const int scaled = p.expert_input(h, logits, c.experts, slot);
    const int gate = p.expert_linear(scaled, logits, layers("gate_proj"), slot);
    const int up = p.expert_linear(scaled, logits, layers("up_proj"), slot);
    y = p.add(y, p.expert_linear(p.gated_activation(gate, up, c.activation), logits, layers("down_proj"), slot));
  }
  return y;
}

std::vector<double> temperatures(const ModelConfig& c, int64_t seqlen) {
  std::vector<double> out;
  for (int64_t t = 0; t < seqlen; ++t)
    out.push_back(1 + c.temperature_scale * std::log1p(std::floor((static_cast<double>(t) + 1) / c.temperature_floor)));
  return out;
}

}  // namespace

void write_llama4(Program& p, const ModelConfig& c, int64_t seqlen) {
  const RotaryAngles angles = rotary_angles(c, seqlen);

  int x = p.token_embedding("model.embed_tokens.weight");
  for (int64_t i = 0; i < c.blocks; ++i) {
    const std::string block = fmt::format("model.layers.{}.", i), attn = block + "self_attn.";
    const auto n = static_cast<size_t>(i);
    int h = p.rms_norm(x, block + "input_layernorm", c.norm_eps);
    int q = p.linear(h, attn + "q_proj"), k = p.linear(h, attn + "k_proj");
    const int v = p.linear(h, attn + "v_proj");
    if (c.rotary_block[n]) {
      q = p.rotary(q, angles, seqlen, c.head_dim, Rotary::Pairs::neighbours);
      k = p.rotary(k, angles, seqlen, c.head_dim, Rotary::Pairs::neighbours);
      if (c.qk_norm) {
        q = p.rms_norm(q, "", c.norm_eps, c.heads);
        k = p.rms_norm(k, "", c.norm_eps, c.kv_heads);
      }
    } else if (c.temperature) {
      q = p.scale(q, temperatures(c, seqlen));
    }
    x = p.add(x, p.linear(p.attention(q, k, v, attention_shape(c, i)), attn + "o_proj"));
    h = p.rms_norm(x, block + "post_attention_layernorm", c.norm_eps);
    x = p.add(x, c.moe[n] ? mixture(p, c, h, block) : gated_mlp(p, c, h, block + "feed_forward."));
  }
  x = p.rms_norm(x, "model.norm", c.norm_eps);
  p.head(x, c.tied_head ? "model.embed_tokens.weight" : "lm_head.weight");
}

}  // namespace hesper
