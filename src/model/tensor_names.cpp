#include "model/tensor_names.h"

#include <fmt/format.h>

#include <utility>

namespace hesper {
namespace {

class Table {
 public:
  explicit Table(std::string root) : root_(std::move(root)) {}

  // Entries that follow belong to this block; -1: outside the blocks.
  void enter_block(int64_t block) { block_ = block; }

  void add(const std::string& layer, const std::string& suffix, std::vector<int64_t> shape, bool linear = false) {
    const std::string place = block_ < 0 ? root_ : fmt::format("{}layers.{}.", root_, block_);
    specs_.push_back({place + layer + suffix, std::move(shape), block_, layer, linear});
  }
  void linear(const std::string& layer, int64_t out, int64_t in, bool bias) {
    add(layer, ".weight", {out, in}, true);
    if (bias) add(layer, ".bias", {out});
  }
  void layer_norm(const std::string& layer, int64_t width, bool affine) {
    if (!affine) return;
    add(layer, ".weight", {width});
    add(layer, ".bias", {width});
  }
  void head(int64_t vocab, int64_t width) { specs_.push_back({"lm_head.weight", {vocab, width}, -1, "lm_head", true}); }
  std::vector<ParameterSpec> take() { return std::move(specs_); }

 private:
  std::string root_;
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

std::vector<ParameterSpec> llama_table(const ModelConfig& c) {
  const int64_t query = c.heads * c.head_dim;
  const int64_t key = c.kv_heads * c.head_dim;
  Table table("model.");
  table.add("embed_tokens", ".weight", {c.vocab, c.width});
  for (int64_t block = 0; block < c.blocks; ++block) {
    table.enter_block(block);
    table.linear("self_attn.q_proj", query, c.width, c.attention_bias);
    table.linear("self_attn.k_proj", key, c.width, c.attention_bias);
    table.linear("self_attn.v_proj", key, c.width, c.attention_bias);
    table.linear("self_attn.o_proj", c.width, query, c.output_bias);
    table.linear("mlp.gate_proj", c.hidden, c.width, c.mlp_bias);
    table.linear("mlp.up_proj", c.hidden, c.width, c.mlp_bias);
    table.linear("mlp.down_proj", c.width, c.hidden, c.mlp_bias);
    table.add("input_layernorm", ".weight", {c.width});
    table.add("post_attention_layernorm", ".weight", {c.width});
  }
  table.enter_block(-1);
  table.add("norm", ".weight", {c.width});
  if (!c.tied_head) table.head(c.vocab, c.width);
  return table.take();
}

}  // namespace

std::vector<ParameterSpec> parameter_table(const ModelConfig& config) {
  return config.family == Family::opt ? opt_table(config) : llama_table(config);
}

std::vector<std::string> linear_layers(Family family) {
  if (family == Family::opt) {
    return {"self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj", "fc1", "fc2"};
  }
  return {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
          "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
}

}  // namespace hesper
