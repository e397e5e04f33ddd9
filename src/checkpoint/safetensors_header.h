#pragma once

#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/tensor_info.h"

namespace hesper {

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // by offset
  std::map<std::string, std::string> metadata;
};

// Reads and checks the header of a whole file held in memory: length, JSON, names, dtypes, shapes; the byte ranges must
// tile the data exactly (no overlap, no hole, nothing after the last), as the format demands.
// Throws std::runtime_error, one line starting with `file`.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> bytes, const std::string& file);

// "F32" <-> Float and so on; nullopt / "" for what is not one of F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL.
std::optional<c10::ScalarType> dtype_from_safetensors(std::string_view name);
std::string_view dtype_to_safetensors(c10::ScalarType dtype);

}  // namespace hesper
