// Any bytes as a tokenizer.json and, behind a zero byte, a text: read and encoded, or refused with std::runtime_error;
// never anything else.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::string_view json = bytes.substr(0, bytes.find('\0'));
  const std::string_view text = json.size() < size ? bytes.substr(json.size() + 1, 4096) : "Hello, w\xc3\xb6rld! 42";
  try {
    const auto tokenizer = hesper::parse_tokenizer_json(json, "", "tokenizer.json");
    const auto ids = tokenizer->encode(text);
    // What it promises of a text: ids that it has tokens for.
    if (std::any_of(ids.begin(), ids.end(), [&](int32_t id) { return id < 0 || id >= tokenizer->vocab_size(); }))
      std::abort();
    tokenizer->decode(ids);
  } catch (const std::runtime_error&) {
  }
  return 0;
}
