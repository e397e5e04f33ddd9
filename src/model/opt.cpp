// OPT: learned positions (offset 2), layer norms before or after each half of a block, projections where the embedding
// is narrower than the model.
#include <fmt/format.h>

#include "model/build_program.h"

namespace hesper {

void write_opt(Program& p, const ModelConfig& c) {
  const std::string root = "model.decoder.";
  const auto norm = [&](int x, const std::string& name) { return p.layer_norm(x, name, c.norm_eps); };

  int x = p.token_embedding(root + "embed_tokens.weight");
  if (c.embed_dim != c.width) x = p.linear(x, root + "project_in");
  x = p.add(x, p.position_embedding(root + "embed_positions.weight", 2));
  for (int64_t i = 0; i < c.blocks; ++i) {
    const std::string block = fmt::format("{}layers.{}.", root, i);
    int h = c.norm_before ? norm(x, block + "self_attn_layer_norm") : x;
    const int k = p.linear(h, block + "self_attn.k_proj");
    const int v = p.linear(h, block + "self_attn.v_proj");
    const int q = p.linear(h, block + "self_attn.q_proj");
    x = p.add(x, p.linear(p.attention(q, k, v, attention_shape(c, i)), block + "self_attn.out_proj"));
    if (!c.norm_before) x = norm(x, block + "self_attn_layer_norm");
    h = c.norm_before ? norm(x, block + "final_layer_norm") : x;
    x = p.add(x, p.linear(p.activation(p.linear(h, block + "fc1"), c.activation), block + "fc2"));
    if (!c.norm_before) x = norm(x, block + "final_layer_norm");
  }
  if (c.final_norm) x = norm(x, root + "final_layer_norm");
  if (c.embed_dim != c.width) x = p.linear(x, root + "project_out");
  p.head(x, c.tied_head ? root + "embed_tokens.weight" : "lm_head.weight");
}

}  // namespace hesper
