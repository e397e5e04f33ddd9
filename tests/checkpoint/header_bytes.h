#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "checkpoint/safetensors_header.h"

namespace hesper {

// A safetensors file by hand: any header text, any data, the length field as it should be unless told otherwise.
inline std::string safetensors_bytes(const std::string& header, const std::string& data, uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(length >> (8 * i) & 0xff));
  return bytes + header + data;
}

inline std::string safetensors_bytes(const std::string& header, const std::string& data = "") {
  return safetensors_bytes(header, data, header.size());
}

inline SafetensorsHeader parse_bytes(const std::string& bytes) {
  return parse_safetensors_header(std::as_bytes(std::span(bytes)), "file");
}

}  // namespace hesper
