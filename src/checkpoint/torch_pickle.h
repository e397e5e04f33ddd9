#pragma once

#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hesper {

// What a pickle says of one tensor: a strided view of a storage that lies elsewhere in the file.
struct TensorRecord {
  c10::ScalarType dtype = c10::ScalarType::Float;
  std::string storage_key;
  int64_t storage_numel = 0;
  int64_t offset = 0;            // in elements
  std::vector<int64_t> sizes;    // (dims)
  std::vector<int64_t> strides;  // (dims), in elements
};

// No more of a file is taken for pickles: a state dict of 50,000 tensors needs 10 MB.
constexpr size_t max_pickle_bytes = 16 << 20;

using StateDict = std::vector<std::pair<std::string, TensorRecord>>;

// The functions below execute nothing: a fixed list of opcodes and globals is understood, any other is refused by name.
// The records that come back are consistent: no negative value, numel <= storage_numel, every element inside the
// storage, one dtype and size for each storage key. They throw std::runtime_error (one line without a file name).

// The pickle of one tensor (or nn.Parameter) as torch.save and torch::pickle_save write it.
TensorRecord read_tensor_pickle(std::string_view pickle);

// The pickle of a state dict: a dict or OrderedDict of names and tensors, each name once.
StateDict read_state_dict_pickle(std::string_view pickle);

// The stream that torch.save wrote before it wrote zip archives (PyTorch before 1.6, and since then on demand): pickles
// of a magic number, the version, the machine, the state dict and the keys of its storages; behind them, in the order
// of the keys, each storage's number of elements (8 bytes) and its elements. Machines of big-endian order are refused.
struct LegacyStream {
  StateDict tensors;
  std::map<std::string, uint64_t> storages;  // key -> byte of the file where the elements begin, all of them inside
};
bool is_legacy_stream(std::string_view file);
LegacyStream read_legacy_stream(std::string_view file);

}  // namespace hesper
