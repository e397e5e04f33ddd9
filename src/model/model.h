#pragma once
// A loaded model: checkpoint, config and parameters as stored (mapped).
#include <optional>
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

/// Precisions of weights by their names in torch_dtype; nothing for another name.
std::optional<at::ScalarType> weight_type(const std::string& name);

/// A folder with a config.json and no weights, which has the shapes of a model and is enough to plan a run.
bool is_shape(const std::string& folder);
/// Its parameters, of the config's own precision (torch_dtype, dtype; fp32 where it says none), on the meta device:
/// without values. Throws as parse_config; std::runtime_error for a precision that weights cannot have.
Model load_shape(const std::string& folder);

}  // namespace hesper
