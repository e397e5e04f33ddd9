#include "ops/random.h"

#include <algorithm>

namespace hesper {
namespace {

template <typename T>
void fill(const ProbeKey& key, int64_t begin, T* out, int64_t count) {
  for (int64_t i = 0; i < count;) {
    const int64_t entry = begin + i, place = entry % bits_of_block, end = std::min(count, i + bits_of_block - place);
    const std::array<uint32_t, 4> block = random_block(key, entry / bits_of_block);
    for (int64_t p = place; i < end; ++i, ++p) out[i] = (block[p / 32] >> (p % 32) & 1u) != 0 ? T(1) : T(-1);
  }
}

}  // namespace

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * c[0], b = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(b),
         static_cast<uint32_t>(a >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(a)};
    k = {k[0] + 0x9E3779B9u, k[1] + 0xBB67AE85u};
  }
  return c;
}

std::array<uint32_t, 4> random_block(const ProbeKey& key, int64_t block) {
  return philox4x32({static_cast<uint32_t>(block), key.stream, key.window, key.probe},
                    {static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)});
}

void fill_signs(const ProbeKey& key, int64_t begin, std::span<double> out) {
  fill(key, begin, out.data(), static_cast<int64_t>(out.size()));
}
void fill_signs(const ProbeKey& key, int64_t begin, std::span<float> out) {
  fill(key, begin, out.data(), static_cast<int64_t>(out.size()));
}

double uniform(const ProbeKey& key, int64_t entry) {
  const std::array<uint32_t, 4> block = random_block(key, entry);
  const uint64_t bits = uint64_t{block[1]} << 32 | block[0];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace hesper
