#include "hessian/selection_request.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace hesper {
namespace {

// Two blocks of width 8: OPT with hidden width 12, LLaMA with two query heads and one key head.
std::vector<ParameterSpec> opt() {
  return parameter_table(parse_config({{"model_type", "opt"},
                                       {"vocab_size", 20},
                                       {"hidden_size", 8},
                                       {"word_embed_proj_dim", 8},
                                       {"ffn_dim", 12},
                                       {"num_hidden_layers", 2},
                                       {"num_attention_heads", 2},
                                       {"max_position_embeddings", 16}},
                                      "config.json"));
}
std::vector<ParameterSpec> llama() {
  return parameter_table(parse_config({{"model_type", "llama"},
                                       {"vocab_size", 20},
                                       {"hidden_size", 8},
                                       {"intermediate_size", 12},
                                       {"num_hidden_layers", 2},
                                       {"num_attention_heads", 2},
                                       {"num_key_value_heads", 1},
                                       {"tie_word_embeddings", false}},
                                      "config.json"));
}

// LLaMA 4: a dense block, then one with a mixture of two experts.
std::vector<ParameterSpec> llama4() {
  return parameter_table(parse_config({{"model_type", "llama4_text"},
                                       {"vocab_size", 20},
                                       {"hidden_size", 8},
                                       {"intermediate_size", 12},
                                       {"intermediate_size_mlp", 16},
                                       {"num_hidden_layers", 2},
                                       {"num_attention_heads", 2},
                                       {"num_key_value_heads", 1},
                                       {"head_dim", 4},
                                       {"num_local_experts", 2},
                                       {"interleave_moe_layer_step", 2}},
                                      "config.json"));
}

using Names = std::vector<std::string>;

SelectionRequest request(Names layers, const std::string& blocks = "0") {
  SelectionRequest r;
  r.layers = std::move(layers);
  r.blocks = blocks;
  r.t = 2;
  return r;
}

Names names(const std::vector<ParameterSpec>& table, const SelectionRequest& r) {
  Names out;
  for (const SelectedTensor& tensor : resolve_selection(table, 2, r).tensors) out.push_back(tensor.name);
  return out;
}

std::vector<int64_t> flat(const SelectionRequest& r) {
  const ResolvedSelection resolved = resolve_selection(opt(), 2, r);
  const at::Tensor all = resolved.selection.parts().at(0).entries();
  return {all.const_data_ptr<int64_t>(), all.const_data_ptr<int64_t>() + all.numel()};
}

std::string refusal(const SelectionRequest& r, const std::vector<ParameterSpec>& table = opt()) {
  try {
    resolve_selection(table, 2, r);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "nothing was refused";
}

TEST(SelectionRequest, LayerNamesOfABlock) {
  EXPECT_EQ(names(opt(), request({"self_attn.q_proj"}, "1")), Names{"model.decoder.layers.1.self_attn.q_proj.weight"});
  EXPECT_EQ(names(opt(), request({"q_proj"})), Names{"model.decoder.layers.0.self_attn.q_proj.weight"});
  EXPECT_EQ(names(llama(), request({"up_proj"})), Names{"model.layers.0.mlp.up_proj.weight"});
  EXPECT_EQ(names(opt(), request({"fc1.bias"})), Names{"model.decoder.layers.0.fc1.bias"});
  EXPECT_EQ(names(opt(), request({"final_layer_norm.weight"})),
            Names{"model.decoder.layers.0.final_layer_norm.weight"});
}

TEST(SelectionRequest, FullNamesWhateverTheBlock) {
  EXPECT_EQ(names(opt(), request({"model.decoder.final_layer_norm.weight"})),
            Names{"model.decoder.final_layer_norm.weight"});
  EXPECT_EQ(names(opt(), request({"model.decoder.layers.1.fc2.bias"})), Names{"model.decoder.layers.1.fc2.bias"});
  EXPECT_EQ(names(llama(), request({"lm_head.weight"})), Names{"lm_head.weight"});
  EXPECT_EQ(names(llama(), request({"model.layers.*.self_attn.k_proj.weight"})),
            (Names{"model.layers.0.self_attn.k_proj.weight", "model.layers.1.self_attn.k_proj.weight"}));
}

TEST(SelectionRequest, GlobsMeanLinearLayersFirst) {
  EXPECT_EQ(names(llama(), request({"mlp.*"}, "1")),
            (Names{"model.layers.1.mlp.gate_proj.weight", "model.layers.1.mlp.up_proj.weight",
                   "model.layers.1.mlp.down_proj.weight"}));
  EXPECT_EQ(names(llama(), request({"*layernorm.weight"})),
            (Names{"model.layers.0.input_layernorm.weight", "model.layers.0.post_attention_layernorm.weight"}));
  EXPECT_EQ(names(opt(), request({"*.bias"})).size(), 8u);  // six linear layers and two norms
  EXPECT_EQ(names(opt(), request({"all"}, "all")).size(), 12u);
}

// Block, then layer in module order, whatever the order of the flags; nothing twice.
TEST(SelectionRequest, OrderOfRows) {
  const ResolvedSelection resolved = resolve_selection(opt(), 2, request({"fc1", "q_proj", "k_proj", "q_*"}, "1,0"));
  const Names expected = {"self_attn.k_proj", "self_attn.q_proj", "fc1"};
  ASSERT_EQ(resolved.tensors.size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    const SelectedTensor& tensor = resolved.tensors[i];
    EXPECT_EQ(tensor.block, int64_t(i / 3));
    EXPECT_EQ(tensor.layer, expected[i % 3]);
    EXPECT_EQ(tensor.begin, int64_t(2 * i));
    EXPECT_EQ(tensor.end, int64_t(2 * i + 2));
    EXPECT_EQ(resolved.selection.parts()[i].parameter, tensor.parameter);
    EXPECT_EQ(opt()[static_cast<size_t>(tensor.parameter)].name, tensor.name);
  }
  EXPECT_EQ(resolved.selection.size(), 12);
}

TEST(SelectionRequest, Blocks) {
  EXPECT_EQ(parse_blocks("0", 12), std::vector<int64_t>{0});
  EXPECT_EQ(parse_blocks("3,0,1-2", 12), (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(parse_blocks("all", 3), (std::vector<int64_t>{0, 1, 2}));
  for (const char* bad : {"", "x", "1-", "-1", "1,,2", "2-1", "0 1", "99999999999999999999"}) {
    EXPECT_THROW(parse_blocks(bad, 12), std::invalid_argument) << bad;
  }
}

TEST(SelectionRequest, Entries) {
  SelectionRequest r = request({"fc1"});  // (12, 8)
  EXPECT_EQ(flat(r), (std::vector<int64_t>{0, 1}));
  r.t.reset();
  EXPECT_EQ(flat(r).size(), 96u);
  r.rows = {2, 4}, r.cols = {6, 8};
  EXPECT_EQ(flat(r), (std::vector<int64_t>{22, 23, 30, 31}));
  r.cols.reset();
  EXPECT_EQ(flat(r).size(), 16u);
  r.rows.reset();
  r.indices = at::tensor({40, 3, 95}, at::kInt);
  EXPECT_EQ(flat(r), (std::vector<int64_t>{40, 3, 95}));  // the order given is the order of the rows of H
}

TEST(SelectionRequest, AVectorIsOneRow) {
  SelectionRequest r = request({"fc1.bias"});
  r.t = 12;
  EXPECT_EQ(flat(r).size(), 12u);
  r.t = 13;
  EXPECT_EQ(refusal(r), "--t 13: row 0 of model.decoder.layers.0.fc1.bias has only 12 weights");
  r.t.reset();
  r.cols = {3, 5};
  EXPECT_EQ(flat(r), (std::vector<int64_t>{3, 4}));
}

TEST(SelectionRequest, RandomEntriesAreSeededAndTheirOwn) {
  SelectionRequest r = request({"fc1", "fc2"});
  r.t.reset();
  r.random = 20;
  const auto both = resolve_selection(opt(), 2, r);
  const at::Tensor first = both.selection.parts()[0].entries(), second = both.selection.parts()[1].entries();
  EXPECT_EQ(first.numel(), 20);
  EXPECT_FALSE(at::equal(first, second));  // fc1 and fc2 have the same number of weights
  r.layers = {"fc2"};
  EXPECT_EQ(flat(r), std::vector<int64_t>(second.const_data_ptr<int64_t>(), second.const_data_ptr<int64_t>() + 20));
  r.seed = 1;
  EXPECT_NE(flat(r), std::vector<int64_t>(second.const_data_ptr<int64_t>(), second.const_data_ptr<int64_t>() + 20));
}

TEST(SelectionRequest, RefusesByBothNumbers) {
  SelectionRequest r = request({"q_proj"}, "0-2");
  EXPECT_EQ(refusal(r), "--block 0-2: the model has 2 blocks, 0 to 1");
  r = request({"q_proj"});
  r.t = 9;
  EXPECT_EQ(refusal(r), "--t 9: row 0 of model.decoder.layers.0.self_attn.q_proj.weight has only 8 weights");
  r.t = 0;
  EXPECT_EQ(refusal(r), "--t 0: at least 1 weight is needed");
  r.t.reset();
  r.random = 65;
  EXPECT_EQ(refusal(r), "--random 65: model.decoder.layers.0.self_attn.q_proj.weight has only 64 weights");
  r.random.reset();
  r.rows = {0, 9};
  EXPECT_EQ(refusal(r), "--rows 0:9: model.decoder.layers.0.self_attn.q_proj.weight has only 8 rows");
  r.rows = {3, 3};
  EXPECT_EQ(refusal(r), "--rows 3:3: an empty range");
  r.rows.reset();
  r.indices = at::tensor({5, 64}, at::kLong);
  EXPECT_EQ(refusal(r),
            "--indices: 64 is outside model.decoder.layers.0.self_attn.q_proj.weight, which has 64 weights");
  r.indices = at::tensor({5, 7, 5}, at::kLong);
  EXPECT_EQ(refusal(r), "--indices: 5 is given twice");
  r.t = 3;
  EXPECT_EQ(refusal(r), "--t, --rows with --cols, --indices and --random exclude each other");
}

TEST(SelectionRequest, UnknownLayersAreToldWhatExists) {
  EXPECT_EQ(refusal(request({"o_proj"})),
            "--layer o_proj: no such layer; a block has self_attn.k_proj, self_attn.v_proj, self_attn.q_proj, "
            "self_attn.out_proj, fc1, fc2; any parameter can be given by its full name");
  EXPECT_EQ(refusal(request({"lm_head.weight"})),
            "--layer lm_head.weight: this model's head is tied to the embedding: select "
            "model.decoder.embed_tokens.weight");
  EXPECT_EQ(refusal(request({"lm_head"}), llama()), "--layer lm_head: its full name is lm_head.weight");
  EXPECT_NE(refusal(request({"xyz*"})).find("no such layer"), std::string::npos);
  EXPECT_EQ(refusal(request({"feed_forward.router"}), llama4()),
            "--layer feed_forward.router: not in the chosen blocks (0); it is in 1");
  EXPECT_NE(refusal(request({"experts.2.gate_proj"}, "1"), llama4()).find("no such layer"), std::string::npos);
}

TEST(SelectionRequest, SplitByTensorKeepsEntries) {
  SelectionRequest r = request({"fc1", "fc2"});
  r.t.reset();
  r.random = 5;
  const ResolvedSelection both = resolve_selection(opt(), 2, r);
  const auto parts = split_by_tensor(both);
  ASSERT_EQ(parts.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(parts[i].tensors[0].name, both.tensors[i].name);
    EXPECT_EQ(parts[i].tensors[0].begin, 0);
    EXPECT_EQ(parts[i].tensors[0].end, 5);
    EXPECT_TRUE(at::equal(parts[i].selection.parts()[0].entries(), both.selection.parts()[i].entries()));
  }
}

TEST(SelectionRequest, knows_the_names_of_gguf_files) {
  const std::string q0 = "model.layers.0.self_attn.q_proj.weight", q1 = "model.layers.1.self_attn.q_proj.weight";
  EXPECT_EQ(names(llama(), request({"blk.1.attn_q"})), Names{q1});
  EXPECT_EQ(names(llama(), request({"blk.1.attn_q.weight"})), Names{q1});
  EXPECT_EQ(names(llama(), request({"blk.*.attn_q"})), (Names{q0, q1}));
  EXPECT_EQ(names(llama(), request({"attn_q"}, "1")), Names{q1});
  EXPECT_EQ(names(llama(), request({"ffn_norm"})), Names{"model.layers.0.post_attention_layernorm.weight"});
  EXPECT_EQ(names(llama(), request({"token_embd.weight"})), Names{"model.embed_tokens.weight"});
  EXPECT_EQ(names(llama(), request({"output"})), Names{"lm_head.weight"});
  EXPECT_NE(refusal(request({"blk.2.attn_q"}), llama()).find("no such layer"), std::string::npos);
  EXPECT_NE(refusal(request({"blk.0.attn_q"})).find("no such layer"), std::string::npos) << "OPT has no such file";
}

}  // namespace
}  // namespace hesper
