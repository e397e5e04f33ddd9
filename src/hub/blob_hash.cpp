#include "hub/blob_hash.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <fstream>
#include <span>
#include <stdexcept>
#include <vector>

#include "text/sha256.h"

namespace hesper {
namespace {

// SHA-1 (FIPS 180-4), as git names objects by it.
class Sha1 {
 public:
  void update(std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) {
      block_[length_++ % 64] = static_cast<uint8_t>(byte);
      if (length_ % 64 == 0) compress();
    }
  }

  std::string hex() {
    const uint64_t bits = length_ * 8;
    const std::byte one{0x80}, zero{0};
    update({&one, 1});
    while (length_ % 64 != 56) update({&zero, 1});
    for (int shift = 56; shift >= 0; shift -= 8) {
      const auto byte = static_cast<std::byte>(bits >> shift);
      update({&byte, 1});
    }
    std::string out;
    for (const uint32_t word : state_) out += fmt::format("{:08x}", word);
    return out;
  }

 private:
  void compress() {
    std::array<uint32_t, 80> w{};
    for (size_t i = 0; i < 16; ++i) {
      for (size_t k = 0; k < 4; ++k) w[i] = w[i] << 8 | block_[4 * i + k];
    }
    for (size_t i = 16; i < 80; ++i) w[i] = std::rotl(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    auto [a, b, c, d, e] = state_;
    for (size_t i = 0; i < 80; ++i) {
      const uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 || i >= 60 ? b ^ c ^ d : (b & c) | (b & d) | (c & d);
      constexpr std::array<uint32_t, 4> round = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
      const uint32_t next = std::rotl(a, 5) + f + e + round[i / 20] + w[i];
      e = d, d = c, c = std::rotl(b, 30), b = a, a = next;
    }
    const std::array<uint32_t, 5> sum = {a, b, c, d, e};
    for (size_t i = 0; i < 5; ++i) state_[i] += sum[i];
  }

  std::array<uint32_t, 5> state_ = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
  std::array<uint8_t, 64> block_{};
  uint64_t length_ = 0;  // bytes so far
};

template <typename Digest>
void update_with_file(Digest& digest, const std::filesystem::path& path, const std::function<void()>& between) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> part(4 << 20);
  while (file) {
    file.read(part.data(), static_cast<std::streamsize>(part.size()));
    digest.update(std::as_bytes(std::span(part.data(), static_cast<size_t>(file.gcount()))));
    between();
  }
  if (!file.eof()) throw std::runtime_error(fmt::format("cannot read {}", path.string()));
}

bool is_hex(const std::string& text) { return text.find_first_not_of("0123456789abcdef") == std::string::npos; }

}  // namespace

std::string blob_hash(const std::filesystem::path& file, const std::string& etag,
                      const std::function<void()>& between) {
  if (etag.size() == 64 && is_hex(etag)) {
    Sha256 digest;
    update_with_file(digest, file, between);
    return digest.hex();
  }
  if (etag.size() == 40 && is_hex(etag)) {
    Sha1 digest;
    const std::string head = fmt::format("blob {}", std::filesystem::file_size(file));
    digest.update(std::as_bytes(std::span(head.c_str(), head.size() + 1)));
    update_with_file(digest, file, between);
    return digest.hex();
  }
  return "";
}

}  // namespace hesper
