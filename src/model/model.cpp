#include "model/model.h"

namespace hesper {

Model load_model(const std::string& folder) {
  Checkpoint checkpoint = Checkpoint::open(folder);
  const ModelConfig config = parse_config(checkpoint);
  Weights weights = load_weights(checkpoint, config);
  return {std::move(checkpoint), std::move(weights)};
}

}  // namespace hesper
