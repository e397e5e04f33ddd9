// Any bytes as JSON lines and as gzip data: rows and bytes within the limit, or refused with std::runtime_error.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "files/gzip.h"
#include "text/rows.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t limit = 1 << 20;
  std::string text(reinterpret_cast<const char*>(data), size);
  try {
    text = hesper::gunzip(std::as_bytes(std::span(data, size)), "file", limit);
    if (text.size() > limit) std::abort();
  } catch (const std::runtime_error&) {
  }
  try {
    size_t total = 0;
    for (const std::string& row : hesper::json_lines_column(text, "text", "file")) total += row.size();
    if (total > text.size()) std::abort();  // an escape is longer than what it stands for
  } catch (const std::runtime_error&) {
  }
  return 0;
}
