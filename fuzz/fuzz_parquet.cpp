// Any bytes as a Parquet file: a column of texts within the limit, or refused with std::runtime_error; never anything
// else. Arrow's own code comes compiled without sanitizers: this finds crashes, and faults of ours.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <stdexcept>
#include <string>

#include "text/parquet.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t limit = 1 << 20;
  try {
    size_t total = 0;
    for (const std::string& row : hesper::parquet_column(std::as_bytes(std::span(data, size)), "text", "file", limit)) {
      total += row.size();
    }
    if (total > limit) std::abort();
  } catch (const std::runtime_error&) {
  }
  return 0;
}
