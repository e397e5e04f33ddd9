#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"

namespace hesper {

// Where a parameter is a piece of a stored tensor (E, in, columns): of one expert, some columns, turned to (out, in).
struct StackedPiece {
  std::string tensor;
  std::vector<int64_t> shape;  // of the tensor
  int64_t expert, begin, end;  // columns [begin, end)
};

struct ParameterSpec {
  std::string name;            // as in the state dict: "model.decoder.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;  // linear weights are (out, in); GPT-2's (in, out)
  int64_t block = -1;          // -1 outside the blocks
  std::string layer;           // name less block and ".weight" or ".bias": "self_attn.q_proj", "embed_tokens"
  bool linear_weight = false;  // the matrix of a linear layer (block layers, project_in, project_out, lm_head)
  std::optional<StackedPiece> piece{};
};

// Every parameter of the model, in module order (that of transformers' state_dict). A tied head has no entry of its
// own.
std::vector<ParameterSpec> parameter_table(const ModelConfig& config);

// The linear layers of the blocks, in module order; those that not all blocks have come after those of the first.
std::vector<std::string> linear_layers(const ModelConfig& config);

// Layers for people to read: those of all experts are one, "feed_forward.experts.{0..15}.gate_proj".
std::vector<std::string> with_experts_joined(const std::vector<std::string>& layers);

}  // namespace hesper
