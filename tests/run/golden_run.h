#pragma once
// Golden models as runs take them.
#include <fmt/format.h>

#include "checkpoint/safetensors.h"
#include "hessian/selection_request.h"
#include "model/model.h"
#include "text/windows.h"

namespace hesper::test {

inline std::string golden_folder(const std::string& name) {
  return fmt::format("{}/tests/golden/{}", HESPER_SOURCE_DIR, name);
}

/// Windows of these ids, a loss on every token after the first.
inline Windows windows_of(const at::Tensor& ids) {
  Windows windows{ids.to(at::kLong), ids.to(at::kLong), {}, ids.size(0)};
  for (int64_t s = 0; s < ids.size(0); ++s) windows.index.push_back(s);
  return windows;
}

inline Windows golden_windows(const std::string& name) {
  return windows_of(SafetensorsFile(golden_folder(name) + "/golden.safetensors").view("ids"));
}

inline ResolvedSelection select(const Model& model, const SelectionRequest& request) {
  return resolve_selection(model.weights.specs, model.config().blocks, request);
}

}  // namespace hesper::test
