#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace hesper {

// What the pickle of one plain tensor says: a strided view of a storage that lies elsewhere in the file.
struct TensorRecord {
  c10::ScalarType dtype = c10::ScalarType::Float;
  std::string storage_key;
  int64_t storage_numel = 0;
  int64_t offset = 0;            // in elements
  std::vector<int64_t> sizes;    // (dims)
  std::vector<int64_t> strides;  // (dims), in elements
};

// Reads the pickle of one tensor (or nn.Parameter) as torch.save and torch::pickle_save write it. Nothing is executed:
// a fixed list of opcodes and globals is understood, any other is refused by name. The record that comes back is
// consistent: no negative value, numel <= storage_numel, and every element inside the storage.
// Throws std::runtime_error (one line without a file name).
TensorRecord read_tensor_pickle(std::string_view pickle);

}  // namespace hesper
