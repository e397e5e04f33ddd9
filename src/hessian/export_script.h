#pragma once
// A short Python script that repeats the computation with transformers and torch's double backward in float64 and
// prints the differences: what a PyTorch user can run and read.
#include <string>

#include "model/model.h"
#include "ops/selection.h"
#include "text/windows.h"

namespace hesper {

struct ScriptOptions {
  int64_t windows = 1;  // the first ones
  int64_t entries = 6;  // m: the script compares the gradient at m entries and the m x m block of H over them
  at::Device device = at::kCPU;
};

/// The text of the script, with ids, labels, selection and hesper's numbers (fp64) baked in. It needs the model's
/// folder (default: the one `model` was read from), torch and transformers, and exits with 1 when a number differs.
/// Throws std::invalid_argument for options out of range.
std::string check_script(const Model& model, const Selection& selection, const Windows& windows,
                         const ScriptOptions& options = {});

}  // namespace hesper
