#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "files/printable.h"

namespace hesper {

// One tensor of a weight file.
struct TensorInfo {
  std::string name;                                    // as stored
  c10::ScalarType dtype = c10::ScalarType::Undefined;  // as read
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // bytes [begin, end) of the file
  uint64_t end = 0;
  std::string_view block_type = {};  // "Q4_1" where the file holds quantised blocks
};

std::string format_shape(std::span<const int64_t> shape);  // "(2, 3)"

}  // namespace hesper
