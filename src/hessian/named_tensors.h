#pragma once
#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

namespace hesper {

/// Handles of tensors and what they are called in a file.
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

}  // namespace hesper
