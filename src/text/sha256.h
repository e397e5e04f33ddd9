#pragma once
// SHA-256 (FIPS 180-4), for naming weights, ids and selections in records.
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace hesper {

// Running digest, for data that arrives in parts. Any number of update() calls, then one hex().
class Sha256 {
 public:
  void update(std::span<const std::byte> bytes);
  std::string hex();  // 64 lower-case digits; ends the digest

 private:
  void compress(const std::byte* block);

  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> block_{};
  uint64_t length_ = 0;  // bytes so far
};

std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace hesper
