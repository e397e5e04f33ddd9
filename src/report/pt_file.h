#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

namespace hesper {

// Writes one tensor (any shape, any device) so that Python's torch.load(path, weights_only=True) returns it as a plain
// tensor on the CPU. The file appears whole or not at all (files/atomic_file.h).
// Throws std::invalid_argument for an undefined tensor or another dtype than float16, bfloat16, float32, float64,
// int32, int64; std::runtime_error when the file cannot be written.
void write_pt(const std::filesystem::path& path, const at::Tensor& tensor);

// Reads one plain tensor (or nn.Parameter) of these dtypes, from write_pt or from Python's torch.save, as a contiguous
// CPU tensor. Executes nothing and trusts nothing of the file: safe on hostile bytes.
// Throws std::runtime_error naming the file and what is wrong.
at::Tensor read_pt(const std::filesystem::path& path);

// The same from bytes; `name` stands in error messages.
at::Tensor parse_pt(std::span<const std::byte> bytes, const std::string& name);

}  // namespace hesper
