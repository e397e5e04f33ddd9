// LLaMA 1 to 3 and what shares its code: RMS norms, rotary positions, grouped heads, gated MLP.
#include <fmt/format.h>

#include <cmath>

#include "model/build_program.h"

namespace hesper {

void write_llama(Program& p, const ModelConfig& c, int64_t seqlen) {
  const std::vector<double> frequencies = rotary_inverse_frequencies(c, seqlen);
  const AttentionShape shape{c.heads, c.kv_heads, c.head_dim, 1 / std::sqrt(static_cast<double>(c.head_dim))};

  int x = p.token_embedding("model.embed_tokens.weight");
  for (int64_t i = 0; i < c.blocks; ++i) {
    const std::string block = fmt::format("model.layers.{}.", i);
    int h = p.rms_norm(x, block + "input_layernorm", c.norm_eps);
    const int q = p.rotary(p.linear(h, block + "self_attn.q_proj"), frequencies, seqlen);
    const int k = p.rotary(p.linear(h, block + "self_attn.k_proj"), frequencies, seqlen);
    const int v = p.linear(h, block + "self_attn.v_proj");
    x = p.add(x, p.linear(p.attention(q, k, v, shape), block + "self_attn.o_proj"));
    h = p.rms_norm(x, block + "post_attention_layernorm", c.norm_eps);
    const int gate = p.linear(h, block + "mlp.gate_proj"), up = p.linear(h, block + "mlp.up_proj");
    x = p.add(x, p.linear(p.gated_activation(gate, up, c.activation), block + "mlp.down_proj"));
  }
  x = p.rms_norm(x, "model.norm", c.norm_eps);
  p.head(x, c.tied_head ? "model.embed_tokens.weight" : "lm_head.weight");
}

}  // namespace hesper
