// GPT-2: learned positions, q, k and v in one matrix, every matrix of a block stored turned.
#include <fmt/format.h>

#include "model/build_program.h"

namespace hesper {

void write_gpt2(Program& p, const ModelConfig& c) {
  const std::string root = "transformer.";
  const auto linear = [&](int x, const std::string& layer) { return p.linear(x, layer, Linear::Stored::in_out); };
  int x = p.add(p.token_embedding(root + "wte.weight"), p.position_embedding(root + "wpe.weight", 0));
  for (int64_t i = 0; i < c.blocks; ++i) {
    const std::string block = fmt::format("{}h.{}.", root, i);
    const int qkv = linear(p.layer_norm(x, block + "ln_1", c.norm_eps), block + "attn.c_attn");
    const auto part = [&](int64_t n) { return p.channels(qkv, 3 * c.width, n * c.width, (n + 1) * c.width); };
    const int q = part(0), k = part(1), v = part(2);
    x = p.add(x, linear(p.attention(q, k, v, attention_shape(c, i)), block + "attn.c_proj"));
    const int h = linear(p.layer_norm(x, block + "ln_2", c.norm_eps), block + "mlp.c_fc");
    x = p.add(x, linear(p.activation(h, c.activation), block + "mlp.c_proj"));
  }
  x = p.layer_norm(x, root + "ln_f", c.norm_eps);
  p.head(x, c.tied_head ? root + "wte.weight" : "lm_head.weight");
}

}  // namespace hesper
