// GPT-NeoX and Pythia: q, k and v of each head side by side in one matrix, a part of each head turned, both halves of a
// block read its input.
#include <fmt/format.h>

#include "model/build_program.h"

namespace hesper {

void write_gpt_neox(Program& p, const ModelConfig& c, int64_t seqlen) {
  const std::string root = "gpt_neox.";
  const RotaryAngles angles = rotary_angles(c, seqlen);
  const int64_t D = c.head_dim;
  int x = p.token_embedding(root + "embed_in.weight");
  for (int64_t i = 0; i < c.blocks; ++i) {
    const std::string block = fmt::format("{}layers.{}.", root, i);
    const auto mlp = [&](int h) {
      h = p.linear(p.layer_norm(h, block + "post_attention_layernorm", c.norm_eps), block + "mlp.dense_h_to_4h");
      return p.linear(p.activation(h, c.activation), block + "mlp.dense_4h_to_h");
    };
    const int h = p.layer_norm(x, block + "input_layernorm", c.norm_eps);
    const int qkv = p.linear(h, block + "attention.query_key_value");
    const int q = p.rotary(p.channels(qkv, 3 * D, 0, D), angles, seqlen, D);
    const int k = p.rotary(p.channels(qkv, 3 * D, D, 2 * D), angles, seqlen, D);
    const int v = p.channels(qkv, 3 * D, 2 * D, 3 * D);
    const int attended = p.linear(p.attention(q, k, v, attention_shape(c, i)), block + "attention.dense");
    if (c.parallel_residual) {
      x = p.add(p.add(mlp(x), attended), x);
    } else {
      x = p.add(attended, x);
      x = p.add(mlp(x), x);
    }
  }
  x = p.layer_norm(x, root + "final_layer_norm", c.norm_eps);
  p.head(x, c.tied_head ? root + "embed_in.weight" : "lm_head.weight");
}

}  // namespace hesper
