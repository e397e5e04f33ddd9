#pragma once
// Weights that stay in the checkpoint while a run uses them: their order, and the room they take on their way.
#include <cstdint>
#include <vector>

#include "model/model.h"
#include "model/program.h"
#include "ops/parameters.h"

namespace hesper {

struct RunForm;

/// Parameters in the order in which a pass that goes up asks for them, and the bytes of those of two blocks, as stored:
/// what is on a GPU and on its way there where weights are streamed.
std::vector<int> weight_order(const Program& program);
int64_t bytes_in_flight(const Program& program, const std::vector<std::vector<int64_t>>& shapes,
                        const std::vector<at::ScalarType>& stored);

/// The model's parameters as a form wants them: in its precision and kept on the device, or streamed.
Parameters make_parameters(const Model& model, const Program& program, at::Device device, const RunForm& form);

}  // namespace hesper
