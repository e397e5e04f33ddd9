// Gemma 2 and 3: embeddings times sqrt(C), gains stored less one, a norm before and behind each half of a block, scores
// and logits capped (2), queries and keys normed (3), blocks that see a window beside blocks that see all.
#include <fmt/format.h>

#include <cmath>

#include "model/build_program.h"

namespace hesper {

void write_gemma(Program& p, const ModelConfig& c, int64_t seqlen) {
  const auto norm = [&](int x, const std::string& layer, int64_t heads = 1) {
    return p.rms_norm(x, layer, c.norm_eps, heads, 1);
  };
  int x = p.scale(p.token_embedding("model.embed_tokens.weight"), {std::sqrt(static_cast<double>(c.width))});
  for (int64_t i = 0; i < c.blocks; ++i) {
    const std::string block = fmt::format("model.layers.{}.", i), attn = block + "self_attn.", mlp = block + "mlp.";
    const RotaryAngles angles = rotary_angles(c, seqlen, i);
    int h = norm(x, block + "input_layernorm");
    int q = p.linear(h, attn + "q_proj"), k = p.linear(h, attn + "k_proj");
    const int v = p.linear(h, attn + "v_proj");
    if (c.qk_norm) {
      q = norm(q, attn + "q_norm", c.heads);
      k = norm(k, attn + "k_norm", c.kv_heads);
    }
    q = p.rotary(q, angles, seqlen, c.head_dim);
    k = p.rotary(k, angles, seqlen, c.head_dim);
    h = p.linear(p.attention(q, k, v, attention_shape(c, i)), attn + "o_proj");
    x = p.add(x, norm(h, block + "post_attention_layernorm"));
    h = norm(x, block + "pre_feedforward_layernorm");
    const int gate = p.linear(h, mlp + "gate_proj"), up = p.linear(h, mlp + "up_proj");
    h = p.linear(p.gated_activation(gate, up, c.activation), mlp + "down_proj");
    x = p.add(x, norm(h, block + "post_feedforward_layernorm"));
  }
  x = norm(x, "model.norm");
  p.head(x, c.tied_head ? "model.embed_tokens.weight" : "lm_head.weight", c.logits_softcap);
}

}  // namespace hesper
