// Any bytes as the tokenizer files that are not a tokenizer.json: a sentencepiece model, tiktoken's lines, or (parted
// by zero bytes) vocab.json, merges.txt and tokenizer_config.json. Read and used, or refused with std::runtime_error.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string_view>

#include "text/tokenizer.h"

namespace {

void encode(const std::function<std::unique_ptr<hesper::Tokenizer>()>& read) {
  try {
    const auto tokenizer = read();
    const auto ids = tokenizer->encode("Hello, w\xc3\xb6rld! <s> 42\n");
    // What it promises of a text: ids that it has tokens for.
    if (std::any_of(ids.begin(), ids.end(), [&](int32_t id) { return id < 0 || id >= tokenizer->vocab_size(); }))
      std::abort();
    tokenizer->decode(ids);
  } catch (const std::runtime_error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (bytes.starts_with('\n')) {
    encode([&] { return hesper::parse_sentencepiece(bytes, "", "tokenizer.model"); });
    return 0;
  }
  encode([&] { return hesper::parse_tiktoken(bytes, "tokenizer.model"); });
  std::string_view parts[3], rest = bytes;
  for (std::string_view& part : parts) {
    part = rest.substr(0, rest.find('\0'));
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
  }
  encode([&] { return hesper::parse_vocab_and_merges(parts[0], parts[1], parts[2], "folder"); });
  return 0;
}
