// Any bytes as a .npy and as a .pt file: one tensor that the bytes hold, or refused with std::runtime_error.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <stdexcept>

#include "report/pt_file.h"
#include "text/npy.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  for (const auto parse : {+[](std::span<const std::byte> b) { return hesper::parse_npy(b, "file"); },
                           +[](std::span<const std::byte> b) { return hesper::parse_pt(b, "file"); }}) {
    try {
      const at::Tensor tensor = parse(bytes);
      if (tensor.nbytes() > size || !tensor.is_contiguous()) std::abort();
    } catch (const std::runtime_error&) {
    }
  }
  return 0;
}
