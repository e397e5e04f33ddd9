// Any bytes as a GGUF file: head, config, tokenizer and blocks read, or refused with std::runtime_error; never anything
// else.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <span>
#include <stdexcept>

#include "checkpoint/ggml_blocks.h"
#include "checkpoint/gguf_file.h"
#include "files/gguf.h"
#include "model/config.h"
#include "text/tokenizer.h"

namespace {

void refused_or_done(const std::function<void()>& read) {
  try {
    read();
  } catch (const std::runtime_error&) {
  }
}

// What the reader promises of every tensor it accepts: its blocks are inside the file, as many as its shape says.
void check_tensor(const hesper::GgufTensor& tensor, std::span<const std::byte> file) {
  uint64_t elements = 1;
  for (const int64_t extent : tensor.shape) {
    if (extent < 1 || __builtin_mul_overflow(elements, static_cast<uint64_t>(extent), &elements)) std::abort();
  }
  if (tensor.begin > tensor.end || tensor.end > file.size()) std::abort();
  if (elements % tensor.type->elements != 0) std::abort();
  if (tensor.end - tensor.begin != elements / tensor.type->elements * tensor.type->bytes) std::abort();
  if (tensor.type->elements == 1) return;
  std::vector<float> values(elements);
  hesper::dequantise(*tensor.type, file.subspan(tensor.begin, tensor.end - tensor.begin), values);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  refused_or_done([&] {
    const hesper::Gguf gguf = hesper::parse_gguf(bytes, "file");
    for (const hesper::GgufTensor& tensor : gguf.tensors) check_tensor(tensor, bytes);
    refused_or_done([&] { hesper::parse_config(hesper::gguf_config(gguf, {}, "file"), "file", true); });
    refused_or_done([&] {
      const auto tokenizer = hesper::parse_gguf_tokenizer(gguf, "file");
      for (const int32_t id : tokenizer->encode("ab 12\n<s>")) {
        if (id < 0 || id >= tokenizer->vocab_size()) std::abort();
      }
    });
  });
  return 0;
}
