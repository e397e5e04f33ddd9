#pragma once
// GGUF files by hand, byte by byte.
#include <bit>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "files/gguf.h"

namespace hesper::gguf_bytes {

inline std::string little(uint64_t value, int width) {
  std::string bytes;
  for (int i = 0; i < width; ++i) bytes += static_cast<char>(value >> (8 * i) & 255);
  return bytes;
}
inline std::string text(std::string_view value) { return little(value.size(), 8) + std::string(value); }
inline std::string number(float value) { return little(std::bit_cast<uint32_t>(value), 4); }

// Metadata: key, number of the type, value.
inline std::string u32(std::string_view key, uint32_t value) { return text(key) + little(4, 4) + little(value, 4); }
inline std::string f32(std::string_view key, float value) { return text(key) + little(6, 4) + number(value); }
inline std::string boolean(std::string_view key, bool value) { return text(key) + little(7, 4) + little(value, 1); }
inline std::string string(std::string_view key, std::string_view value) {
  return text(key) + little(8, 4) + text(value);
}
inline std::string array(std::string_view key, uint32_t type, uint64_t count, const std::string& bytes) {
  return text(key) + little(9, 4) + little(type, 4) + little(count, 8) + bytes;
}
inline std::string texts(std::string_view key, const std::vector<std::string>& values) {
  std::string bytes;
  for (const std::string& value : values) bytes += text(value);
  return array(key, 8, values.size(), bytes);
}
inline std::string integers(std::string_view key, const std::vector<int32_t>& values) {
  std::string bytes;
  for (const int32_t value : values) bytes += little(static_cast<uint32_t>(value), 4);
  return array(key, 5, values.size(), bytes);
}
inline std::string floats(std::string_view key, const std::vector<float>& values) {
  std::string bytes;
  for (const float value : values) bytes += number(value);
  return array(key, 6, values.size(), bytes);
}

// Name, dimensions innermost first as in the file, number of the type, byte of the data.
inline std::string tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
  std::string bytes = text(name) + little(dims.size(), 4);
  for (const uint64_t dim : dims) bytes += little(dim, 8);
  return bytes + little(type, 4) + little(offset, 8);
}

inline std::string file(const std::vector<std::string>& metadata, const std::vector<std::string>& tensors = {},
                        const std::string& data = "", uint32_t version = 3, size_t alignment = 32) {
  std::string bytes = "GGUF" + little(version, 4) + little(tensors.size(), 8) + little(metadata.size(), 8);
  for (const std::string& value : metadata) bytes += value;
  for (const std::string& value : tensors) bytes += value;
  bytes.resize((bytes.size() + alignment - 1) / alignment * alignment, '\0');
  return bytes + data;
}

inline Gguf parse(const std::string& bytes) { return parse_gguf(std::as_bytes(std::span(bytes)), "F"); }

}  // namespace hesper::gguf_bytes
