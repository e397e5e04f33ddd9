#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/config.h"
#include "model/tensor_names.h"

namespace hesper {

struct Weights {
  ModelConfig config;
  std::vector<ParameterSpec> specs;
  std::vector<at::Tensor>
      values;  // in the order of specs, each of its spec's shape; mapped where nothing was converted

  int index(std::string_view name) const;  // place in specs; -1 when there is no such parameter
};

// Every parameter of the model out of the checkpoint, in `dtype` (float64, float32, float16 or bfloat16) or as stored.
// Throws std::runtime_error, one line, naming the first tensor that is missing, extra, misshapen, not of a floating
// type, or not finite (also after conversion), with both shapes, and how many more are wrong. Ignored: rotary tables
// and version marks of old checkpoints, and a lm_head.weight equal to the embedding it is tied to.
Weights load_weights(const Checkpoint& checkpoint, const ModelConfig& config,
                     std::optional<at::ScalarType> dtype = std::nullopt);

}  // namespace hesper
