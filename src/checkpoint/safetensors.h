#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/safetensors_header.h"
#include "checkpoint/weight_file.h"

namespace hesper {

// One safetensors file.
class SafetensorsFile : public WeightFile {
 public:
  // Throws std::runtime_error (one line: file, tensor, both numbers) when the file cannot be read or is malformed.
  explicit SafetensorsFile(const std::string& path);

  std::string format() const override { return "safetensors"; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  at::Tensor value(size_t place) const override { return mapped(tensors()[place]); }

  std::map<std::string, std::string> metadata_;
};

// Writes tensors (any device, any strides) as one safetensors file that the Python package reads: elements of wide
// types first, then by name, header padded to 8 bytes. Whole or not at all.
// Throws std::invalid_argument for a repeated or reserved name or a dtype the format lacks, std::runtime_error for I/O.
void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace hesper
