#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/safetensors_header.h"

namespace hesper {

// One memory-mapped safetensors file. Tensors made by view() keep the mapping alive; they are read-only by contract
// (the pages are mapped without write permission: writing into one is a crash, never a changed checkpoint).
class SafetensorsFile {
 public:
  // Throws std::runtime_error (one line: file, tensor, both numbers) when the file cannot be read or is malformed.
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }  // by offset
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  std::span<const std::byte> bytes() const;  // the whole file

  bool has(std::string_view name) const { return index_.contains(name); }
  const TensorInfo& info(std::string_view name) const;  // std::runtime_error when there is no such tensor

  // Stored dtype and shape, zero-copy; a tensor whose bytes are not aligned to its element is copied.
  at::Tensor view(std::string_view name) const;

 private:
  struct Mapping;
  std::string path_;
  std::shared_ptr<const Mapping> mapping_;
  SafetensorsHeader header_;
  std::map<std::string, size_t, std::less<>> index_;  // name -> place in header_.tensors
};

// Writes tensors (any device, any strides) as one safetensors file that the Python package reads: elements of wide
// types first, then by name, header padded to 8 bytes. Whole or not at all.
// Throws std::invalid_argument for a repeated or reserved name or a dtype the format lacks, std::runtime_error for I/O.
void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace hesper
