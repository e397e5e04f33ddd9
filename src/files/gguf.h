#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace hesper {

// How a GGUF file stores the elements of a tensor: rows of blocks of equal size.
struct GgmlType {
  uint32_t number;        // in the file
  std::string_view name;  // "Q4_1"
  uint64_t elements;      // of one block; divides the length of a row
  uint64_t bytes;         // of one block
};

struct GgufTensor {
  std::string name;
  const GgmlType* type;        // one of a fixed table
  std::vector<int64_t> shape;  // outermost dimension first, as elsewhere here (the file has it last)
  uint64_t begin, end;         // bytes of the file, inside it
};

// An array of the metadata. Strings are stored with 8 bytes of length before each.
struct GgufArray {
  uint32_t type;  // of the elements, by the format's number
  uint64_t count;
  std::string_view bytes;  // checked to hold `count` elements
};
using GgufValue = std::variant<uint64_t, int64_t, float, double, bool, std::string_view, GgufArray>;

// The head of a GGUF file. Texts lie in the bytes it was read from, which must outlive it.
struct Gguf {
  uint32_t version = 0;
  std::map<std::string, GgufValue, std::less<>> metadata;
  std::vector<GgufTensor> tensors;  // in the order of the file
};

// Reads and checks the head of a whole little-endian file of version 2 or 3 held in memory: every length and count
// against the bytes that are there, names unique, shapes and types of the tensors, their bytes inside the file, aligned
// and not overlapping. Throws std::runtime_error, one line starting with `file`.
Gguf parse_gguf(std::span<const std::byte> bytes, const std::string& file);

// The one .gguf file of a folder, "" when there is none. Throws std::runtime_error when there are several.
std::string only_gguf_file(const std::string& folder);

// Typed access to the metadata; std::runtime_error "FILE: KEY ..." for another type or a value out of range.
class GgufFields {
 public:
  GgufFields(const Gguf& gguf, std::string file) : gguf_(&gguf), file_(std::move(file)) {}

  bool has(std::string_view key) const { return gguf_->metadata.contains(key); }
  std::string text(std::string_view key) const;
  std::string text_or(std::string_view key, std::string fallback) const;
  uint64_t integer(std::string_view key, uint64_t most) const;
  uint64_t integer_or(std::string_view key, uint64_t most, uint64_t fallback) const;
  double number(std::string_view key) const;  // of a float: the shortest decimal that rounds to it
  bool boolean_or(std::string_view key, bool fallback) const;
  std::vector<std::string_view> texts(std::string_view key) const;
  std::vector<int64_t> integers(std::string_view key) const;  // of int32 or uint32
  std::vector<float> floats(std::string_view key) const;

  const std::string& file() const { return file_; }
  [[noreturn]] void fail(std::string_view key, const std::string& what) const;
  [[noreturn]] void refuse(std::string_view key, const std::string& why) const;  // "KEY = VALUE why"

 private:
  const GgufValue& at(std::string_view key) const;

  const Gguf* gguf_;
  std::string file_;
};

}  // namespace hesper
