#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"

namespace hesper {

struct ParameterSpec {
  std::string name;            // as in the state dict: "model.decoder.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;  // linear weights are (out, in)
  int64_t block = -1;          // -1 outside the blocks
  std::string layer;           // name less block and ".weight" or ".bias": "self_attn.q_proj", "embed_tokens"
  bool linear_weight = false;  // the matrix of a linear layer (block layers, project_in, project_out, lm_head)
};

// Every parameter of the model, in module order (that of transformers' state_dict). A tied head has no entry of its
// own.
std::vector<ParameterSpec> parameter_table(const ModelConfig& config);

// The linear layers of a block, in module order.
std::vector<std::string> linear_layers(Family family);

}  // namespace hesper
