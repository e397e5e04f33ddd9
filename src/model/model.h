#pragma once
// A loaded model: checkpoint, config and parameters as stored (mapped).
#include <string>

#include "checkpoint/checkpoint.h"
#include "hub/hub_origin.h"
#include "model/weights.h"

namespace hesper {

struct Model {
  Checkpoint checkpoint;
  Weights weights;  // values in the checkpoint's own precision
  HubOrigin origin = {};
  const ModelConfig& config() const { return weights.config; }
};

/// Opens a model folder in Hugging Face layout. Throws std::runtime_error, one line (config.h, weights.h,
/// checkpoint.h).
Model load_model(const std::string& folder);

}  // namespace hesper
