#pragma once
// NumPy's .npy files: little-endian int32, int64, float32, float64 in C order, format versions 1 to 3.
#include <ATen/ATen.h>

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace hesper {

// The array with its own shape and dtype, on the CPU. std::runtime_error naming the file for anything else.
at::Tensor read_npy(const std::filesystem::path& path);

// The same from bytes; `name` stands in error messages.
at::Tensor parse_npy(std::span<const std::byte> bytes, std::string_view name);

// Version 1.0, through a temporary file and a rename. Any shape; std::invalid_argument for other dtypes.
void write_npy(const std::filesystem::path& path, const at::Tensor& tensor);

}  // namespace hesper
