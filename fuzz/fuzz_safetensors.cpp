// Any bytes as a safetensors file: read, or refused with std::runtime_error; never anything else.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <stdexcept>

#include "checkpoint/safetensors_header.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    // What the reader promises of every tensor it accepts: its bytes are inside the file and touch the next one's.
    uint64_t end = 0;
    for (const hesper::TensorInfo& info : hesper::parse_safetensors_header(bytes, "file").tensors) {
      uint64_t needed = c10::elementSize(info.dtype);
      for (const int64_t extent : info.shape) needed *= static_cast<uint64_t>(extent);
      if (info.begin > info.end || info.end > size || info.end - info.begin != needed) std::abort();
      if (end != 0 && info.begin != end) std::abort();
      end = info.end;
    }
  } catch (const std::runtime_error&) {
  }
  return 0;
}
