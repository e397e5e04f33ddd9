#pragma once

#include <string>
#include <vector>

#include "checkpoint/torch_pickle.h"
#include "checkpoint/weight_file.h"

namespace hesper {

// A state dict as torch.save writes it (pytorch_model.bin): a zip archive with stored entries, or the legacy stream.
// Views of any strides and tensors that share a storage are read; nothing is executed (torch_pickle.h).
class TorchFile : public WeightFile {
 public:
  // Throws std::runtime_error (one line: file, thing, both numbers) when the file cannot be read, is malformed, of
  // another byte order, compressed, or holds anything but named tensors.
  explicit TorchFile(const std::string& path);

  std::string format() const override { return "pytorch_model.bin"; }

 private:
  at::Tensor value(size_t place) const override;

  std::vector<std::vector<int64_t>> strides_;  // of tensors(), in elements
};

// The tensors of such a file held in memory, in the order of the state dict; `strides` as in TorchFile.
struct TorchTensors {
  std::vector<TensorInfo> tensors;
  std::vector<std::vector<int64_t>> strides;
};
TorchTensors parse_torch_file(std::span<const std::byte> bytes, const std::string& file);

}  // namespace hesper
