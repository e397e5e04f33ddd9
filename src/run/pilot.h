#pragma once
// What the parts of a run take, measured on its first window before it begins.
#include "model/model.h"
#include "run/plan.h"
#include "text/windows.h"

namespace hesper {

struct Pilot {
  double primal = 0;   // seconds of the primal pass of a window
  double product = 0;  // of one direction of a window, of plan.directions at once
};

/// A primal pass and, twice, the better counted, as many directions at once as the plan has (products with random
/// signs, or the first weights of a Gram pass). Throws std::runtime_error where the window's loss is not finite.
Pilot run_pilot(const Model& model, const Selection& selection, const Windows& windows, const EngineOptions& options,
                const Plan& plan);

}  // namespace hesper
