#pragma once
// A loaded model: checkpoint, config and parameters as stored (mapped).
#include <string>

#include "checkpoint/checkpoint.h"
#include "model/weights.h"

namespace hesper {

/// Where a model's files came from; empty for a folder or file that the user named.
struct ModelOrigin {
  std::string hub_id;  // "ORG/NAME"
  std::string commit;  // 40 hex digits
};

struct Model {
  Checkpoint checkpoint;
  Weights weights;  // values in the checkpoint's own precision
  ModelOrigin origin = {};
  const ModelConfig& config() const { return weights.config; }
};

/// Opens a model folder in Hugging Face layout. Throws std::runtime_error, one line (config.h, weights.h,
/// checkpoint.h).
Model load_model(const std::string& folder);

}  // namespace hesper
