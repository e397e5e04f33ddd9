#include "model/tensor_names.h"

#include <fmt/format.h>

#include <map>
#include <set>
#include <string_view>
#include <utility>

namespace hesper {
namespace {

class Table {
 public:
  explicit Table(std::string root, std::string blocks = "layers") : root_(std::move(root)), blocks_(blocks) {}

  // Entries that follow belong to this block; -1: outside the blocks.
  void enter_block(int64_t block) { block_ = block; }

  void add(const std::string& layer, const std::string& suffix, std::vector<int64_t> shape, bool linear = false) {
    const std::string place = block_ < 0 ? root_ : fmt::format("{}{}.{}.", root_, blocks_, block_);
    specs_.push_back({place + layer + suffix, std::move(shape), block_, layer, linear, {}});
  }
  void linear(const std::string& layer, int64_t out, int64_t in, bool bias) {
    add(layer, ".weight", {out, in}, true);
    if (bias) add(layer, ".bias", {out});
  }
  /// A matrix stored as (in, out), and its bias.
  void turned_linear(const std::string& layer, int64_t out, int64_t in) {
    add(layer, ".weight", {in, out}, true);
    add(layer, ".bias", {out});
  }
  /// Expert `e` of E in columns [begin, begin + out) of the block's stacked tensor (E, in, columns).
  void expert(const std::string& layer, int64_t out, int64_t in, const std::string& stacked, int64_t experts, int64_t e,
              int64_t begin, int64_t columns) {
    add(layer, ".weight", {out, in}, true);
    specs_.back().piece = StackedPiece{
        fmt::format("{}{}.{}.{}", root_, blocks_, block_, stacked), {experts, in, columns}, e, begin, begin + out};
  }
  void norm(const std::string& layer, int64_t width) { add(layer, ".weight", {width}); }
  void layer_norm(const std::string& layer, int64_t width, bool affine) {
    if (!affine) return;
    add(layer, ".weight", {width});
    add(layer, ".bias", {width});
  }
  void head(int64_t vocab, int64_t width) {
    specs_.push_back({"lm_head.weight", {vocab, width}, -1, "lm_head", true, {}});
  }
  std::vector<ParameterSpec> take() { return std::move(specs_); }

 private:
  std::string root_, blocks_;
  int64_t block_ = -1;
  std::vector<ParameterSpec> specs_;
};

std::vector<ParameterSpec> opt_table(const ModelConfig& c) {
  constexpr int64_t position_offset = 2;  // OPT's table has two rows before position 0
  Table table("model.decoder.");
  table.add("embed_tokens", ".weight", {c.vocab, c.embed_dim});
  table.add("embed_positions", ".weight", {c.max_positions + position_offset, c.width});
  if (c.embed_dim != c.width) {
    table.linear("project_out", c.embed_dim, c.width, false);
    table.linear("project_in", c.width, c.embed_dim, false);
  }
  table.layer_norm("final_layer_norm", c.width, c.norm_affine && c.final_norm);
  for (int64_t block = 0; block < c.blocks; ++block) {
    table.enter_block(block);
    for (const char* layer : {"k_proj", "v_proj", "q_proj", "out_proj"}) {
      table.linear(fmt::format("self_attn.{}", layer), c.width, c.width, c.bias);
    }
    table.layer_norm("self_attn_layer_norm", c.width, c.norm_affine);
    table.linear("fc1", c.hidden, c.width, c.bias);
    table.linear("fc2", c.width, c.hidden, c.bias);
    table.layer_norm("final_layer_norm", c.width, c.norm_affine);
  }
  if (!c.tied_head) table.head(c.vocab, c.embed_dim);
  return table.take();
}

std::vector<ParameterSpec> gpt2_table(const ModelConfig& c) {
  Table table("transformer.", "h");
  table.add("wte", ".weight", {c.vocab, c.width});
  table.add("wpe", ".weight", {c.max_positions, c.width});
  for (int64_t block = 0; block < c.blocks; ++block) {
    table.enter_block(block);
    table.layer_norm("ln_1", c.width, true);
    table.turned_linear("attn.c_attn", 3 * c.width, c.width);
    table.turned_linear("attn.c_proj", c.width, c.width);
    table.layer_norm("ln_2", c.width, true);
    table.turned_linear("mlp.c_fc", c.hidden, c.width);
    table.turned_linear("mlp.c_proj", c.width, c.hidden);
  }
  table.enter_block(-1);
  table.layer_norm("ln_f", c.width, true);
  if (!c.tied_head) table.head(c.vocab, c.width);
  return table.take();
}

std::vector<ParameterSpec> gpt_neox_table(const ModelConfig& c) {
  Table table("gpt_neox.");
  table.add("embed_in", ".weight", {c.vocab, c.width});
  for (int64_t block = 0; block < c.blocks; ++block) {
    table.enter_block(block);
    table.layer_norm("input_layernorm", c.width, true);
    table.layer_norm("post_attention_layernorm", c.width, true);
    table.linear("attention.query_key_value", 3 * c.width, c.width, c.attention_bias);
    table.linear("attention.dense", c.width, c.width, c.output_bias);
    table.linear("mlp.dense_h_to_4h", c.hidden, c.width, true);
    table.linear("mlp.dense_4h_to_h", c.width, c.hidden, true);
  }
  table.enter_block(-1);
  table.layer_norm("final_layer_norm", c.width, true);
  if (!c.tied_head) table.head(c.vocab, c.width);
  return table.take();
}

// gate_proj, up_proj and down_proj of a gated MLP.
void gated_mlp(Table& table, const std::string& layer, int64_t hidden, int64_t width, bool bias) {
  table.linear(layer + ".gate_proj", hidden, width, bias);
  table.linear(layer + ".up_proj", hidden, width, bias);
  table.linear(layer + ".down_proj", width, hidden, bias);
}

void mixture(Table& table, const ModelConfig& c) {
  const std::string experts = "feed_forward.experts.";
  for (int64_t e = 0; e < c.experts; ++e) {
    const std::string layer = fmt::format("{}{}.", experts, e);
    table.expert(layer + "gate_proj", c.hidden, c.width, experts + "gate_up_proj", c.experts, e, 0, 2 * c.hidden);
    table.expert(layer + "up_proj", c.hidden, c.width, experts + "gate_up_proj", c.experts, e, c.hidden, 2 * c.hidden);
    table.expert(layer + "down_proj", c.width, c.hidden, experts + "down_proj", c.experts, e, 0, c.width);
  }
  table.linear("feed_forward.router", c.experts, c.width, false);
  gated_mlp(table, "feed_forward.shared_expert", c.hidden, c.width, false);
}

// LLaMA, and Gemma and LLaMA 4 with norms and layers of their own.
std::vector<ParameterSpec> llama_table(const ModelConfig& c) {
  const int64_t query = c.heads * c.head_dim;
  const int64_t key = c.kv_heads * c.head_dim;
  Table table("model.");
  table.add("embed_tokens", ".weight", {c.vocab, c.width});
  for (int64_t block = 0; block < c.blocks; ++block) {
    table.enter_block(block);
    if (c.fused_layers) {
      table.linear("self_attn.o_proj", c.width, query, c.output_bias);
      table.linear("self_attn.qkv_proj", query + 2 * key, c.width, c.attention_bias);
      table.linear("mlp.gate_up_proj", 2 * c.hidden, c.width, c.mlp_bias);
      table.linear("mlp.down_proj", c.width, c.hidden, c.mlp_bias);
    } else {
      table.linear("self_attn.q_proj", query, c.width, c.attention_bias);
      table.linear("self_attn.k_proj", key, c.width, c.attention_bias);
      table.linear("self_attn.v_proj", key, c.width, c.attention_bias);
      table.linear("self_attn.o_proj", c.width, query, c.output_bias);
      if (c.qk_norm && c.family != Family::llama4) {  // whose norm of queries and keys has no gain
        table.norm("self_attn.q_norm", c.head_dim);
        table.norm("self_attn.k_norm", c.head_dim);
      }
      if (c.family != Family::llama4)
        gated_mlp(table, "mlp", c.hidden, c.width, c.mlp_bias);
      else if (c.moe.at(static_cast<size_t>(block)))
        mixture(table, c);
      else
        gated_mlp(table, "feed_forward", c.dense_hidden, c.width, false);
    }
    table.norm("input_layernorm", c.width);
    table.norm("post_attention_layernorm", c.width);
    if (c.family == Family::gemma) {
      table.norm("pre_feedforward_layernorm", c.width);
      table.norm("post_feedforward_layernorm", c.width);
    }
  }
  table.enter_block(-1);
  table.norm("norm", c.width);
  if (!c.tied_head) table.head(c.vocab, c.width);
  return table.take();
}

}  // namespace

std::vector<ParameterSpec> parameter_table(const ModelConfig& config) {
  switch (config.family) {
    case Family::opt:
      return opt_table(config);
    case Family::gpt2:
      return gpt2_table(config);
    case Family::gpt_neox:
      return gpt_neox_table(config);
    case Family::llama:
    case Family::gemma:
    case Family::llama4:
      return llama_table(config);
  }
  return {};
}

std::vector<std::string> linear_layers(const ModelConfig& config) {
  std::vector<std::string> layers;
  std::set<std::string> seen;
  for (const ParameterSpec& spec : parameter_table(config))
    if (spec.block >= 0 && spec.linear_weight && seen.insert(spec.layer).second) layers.push_back(spec.layer);
  return layers;
}

std::vector<std::string> with_experts_joined(const std::vector<std::string>& layers) {
  constexpr std::string_view experts = ".experts.";
  std::vector<std::string> out;
  std::map<std::string, size_t> place;  // in out, by the name without its number
  for (const std::string& layer : layers) {
    const size_t at = layer.find(experts);
    if (at == std::string::npos) {
      out.push_back(layer);
      continue;
    }
    const size_t number = at + experts.size(), rest = layer.find('.', number);
    const auto [entry, fresh] = place.try_emplace(layer.substr(0, number) + layer.substr(rest), out.size());
    if (fresh) out.emplace_back();
    out[entry->second] = fmt::format("{}{{0..{}}}{}", layer.substr(0, number), layer.substr(number, rest - number),
                                     layer.substr(rest));  // the last expert's stays
  }
  return out;
}

}  // namespace hesper
