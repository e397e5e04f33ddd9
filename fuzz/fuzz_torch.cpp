// Any bytes as a pytorch_model.bin: read, or refused with std::runtime_error; never anything else.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <stdexcept>

#include "checkpoint/torch_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    // What the reader promises of every tensor it accepts: the elements its strides reach are inside its bytes, and
    // those inside the file.
    const hesper::TorchTensors parsed = hesper::parse_torch_file(std::as_bytes(std::span(data, size)), "file");
    if (parsed.strides.size() != parsed.tensors.size()) std::abort();
    for (size_t i = 0; i < parsed.tensors.size(); ++i) {
      const hesper::TensorInfo& info = parsed.tensors[i];
      if (info.begin > info.end || info.end > size || parsed.strides[i].size() != info.shape.size()) std::abort();
      uint64_t elements = 1, farthest = 0;
      for (size_t d = 0; d < info.shape.size(); ++d) {
        const int64_t extent = info.shape[d], stride = parsed.strides[i][d];
        if (extent < 0 || stride < 0) std::abort();
        elements *= static_cast<uint64_t>(extent);
        if (extent > 0) farthest += static_cast<uint64_t>(extent - 1) * static_cast<uint64_t>(stride);
      }
      if (elements == 0) continue;
      if (info.end - info.begin != (farthest + 1) * c10::elementSize(info.dtype) || elements > size) std::abort();
    }
  } catch (const std::runtime_error&) {
  }
  return 0;
}
