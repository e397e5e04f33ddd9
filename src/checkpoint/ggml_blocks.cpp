#include "checkpoint/ggml_blocks.h"

#include <c10/util/Half.h>

#include <array>
#include <stdexcept>
#include <string>
#include <utility>

namespace hesper {
namespace {

// d: a float16 scale has 11 significant bits. With an integer scale of at most 7 and a quant of at most 6 the product
// has 24, which float32 holds.
using Bytes = const uint8_t*;

float half(Bytes at) {
  return static_cast<float>(c10::Half(static_cast<uint16_t>(at[0] | at[1] << 8), c10::Half::from_bits()));
}

// Blocks of 32: the low four bits of byte j belong to value j, the high four to value j + 16.
int nibble(Bytes quants, int j) { return j < 16 ? quants[j] & 15 : quants[j - 16] >> 4; }

// The fifth bits of Q5_0 and Q5_1: bit j of a 32-bit integer.
int fifth_bit(Bytes high, int j) { return high[j / 8] >> (j % 8) & 1; }

// (d, 16 bytes)   x = d (q - 8)
void q4_0(Bytes block, float* x) {
  const float d = half(block);
  for (int j = 0; j < 32; ++j) x[j] = d * static_cast<float>(nibble(block + 2, j) - 8);
}

// (d, m, 16 bytes)   x = d q + m
void q4_1(Bytes block, float* x) {
  const float d = half(block), m = half(block + 2);
  for (int j = 0; j < 32; ++j) x[j] = d * static_cast<float>(nibble(block + 4, j)) + m;
}

// (d, 4 bytes of fifth bits, 16 bytes)   x = d (q - 16)
void q5_0(Bytes block, float* x) {
  const float d = half(block);
  for (int j = 0; j < 32; ++j) {
    x[j] = d * static_cast<float>((nibble(block + 6, j) | fifth_bit(block + 2, j) << 4) - 16);
  }
}

// (d, m, 4 bytes of fifth bits, 16 bytes)   x = d q + m
void q5_1(Bytes block, float* x) {
  const float d = half(block), m = half(block + 2);
  for (int j = 0; j < 32; ++j) {
    x[j] = d * static_cast<float>(nibble(block + 8, j) | fifth_bit(block + 4, j) << 4) + m;
  }
}

// (d, 32 signed bytes)   x = d q
void q8_0(Bytes block, float* x) {
  const float d = half(block);
  for (int j = 0; j < 32; ++j) x[j] = d * static_cast<float>(static_cast<int8_t>(block[2 + j]));
}

// The K types: 256 values a block, in groups of 16 or 32 with integer scales of their own.

// Two bits a value: 64 bytes hold two halves of 128 values, in each the bits 2k, 2k + 1 of byte j value 32 k + j.
int two_bits(Bytes quants, int i) { return quants[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3; }

// Four bits a value: 128 bytes hold four runs of 64 values, in each the low bits value j, the high bits value 32 + j.
int four_bits(Bytes quants, int i) { return quants[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15; }

// (16 bytes s: low bits scale, high bits minimum of group g; 64 bytes; d, m)   x = d s q - m s'
void q2_k(Bytes block, float* x) {
  const Bytes quants = block + 16;
  const float d = half(block + 80), m = half(block + 82);
  for (int i = 0; i < 256; ++i) {
    const int s = block[i / 16];
    x[i] = d * static_cast<float>(s & 15) * static_cast<float>(two_bits(quants, i)) - m * static_cast<float>(s >> 4);
  }
}

// (32 bytes: bit i / 32 of byte i % 32 is value i's third bit, upside down; 64 bytes; 12 bytes of scales; d)
// x = d (s - 32) (q - 4 (1 - third bit)), s of six bits: four from bytes 0..7, two from bytes 8..11
void q3_k(Bytes block, float* x) {
  const Bytes quants = block + 32, scales = block + 96;
  const float d = half(block + 108);
  for (int i = 0; i < 256; ++i) {
    const int g = i / 16;
    const int s = (scales[g % 8] >> (g / 8 * 4) & 15) | (scales[8 + g % 4] >> (g / 4 * 2) & 3) << 4;
    const int q = two_bits(quants, i) - ((block[i % 32] >> (i / 32) & 1) != 0 ? 0 : 4);
    x[i] = d * static_cast<float>(s - 32) * static_cast<float>(q);
  }
}

// Scale and minimum of group g of 8, six bits each in 12 bytes: groups 0..3 plainly in bytes g and g + 4; of
// groups 4..7 the low four bits in byte g + 4, the high two on top of the bytes of group g - 4.
std::pair<float, float> scale_and_minimum(Bytes s, int g) {
  if (g < 4) return {static_cast<float>(s[g] & 63), static_cast<float>(s[g + 4] & 63)};
  return {static_cast<float>((s[g + 4] & 15) | (s[g - 4] >> 6) << 4),
          static_cast<float>(s[g + 4] >> 4 | (s[g] >> 6) << 4)};
}

// (d, m, 12 bytes of scales, 128 bytes)   x = d s q - m s'
void q4_k(Bytes block, float* x) {
  const float d = half(block), m = half(block + 2);
  for (int i = 0; i < 256; ++i) {
    const auto [scale, minimum] = scale_and_minimum(block + 4, i / 32);
    x[i] = d * scale * static_cast<float>(four_bits(block + 16, i)) - m * minimum;
  }
}

// (d, m, 12 bytes of scales, 32 bytes: bit i / 32 of byte i % 32 is value i's fifth bit, 128 bytes)   x = d s q - m s'
void q5_k(Bytes block, float* x) {
  const Bytes high = block + 16;
  const float d = half(block), m = half(block + 2);
  for (int i = 0; i < 256; ++i) {
    const auto [scale, minimum] = scale_and_minimum(block + 4, i / 32);
    const int q = four_bits(block + 48, i) | (high[i % 32] >> (i / 32) & 1) << 4;
    x[i] = d * scale * static_cast<float>(q) - m * minimum;
  }
}

// (128 bytes low, 64 bytes high, 16 signed bytes s, d)   x = d s (q - 32)
// low: two halves of 128 values, in each byte j the four bits of values j and j + 64; high: as two_bits
void q6_k(Bytes block, float* x) {
  const Bytes high = block + 128, scales = block + 192;
  const float d = half(block + 208);
  for (int i = 0; i < 256; ++i) {
    const int low = block[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 15;
    const int q = (low | two_bits(high, i) << 4) - 32;
    x[i] = d * static_cast<float>(static_cast<int8_t>(scales[i / 16])) * static_cast<float>(q);
  }
}

struct Reader {
  std::string_view type;
  void (*block)(Bytes, float*);
};
constexpr Reader readers[] = {
    {"Q4_0", q4_0}, {"Q4_1", q4_1}, {"Q5_0", q5_0}, {"Q5_1", q5_1}, {"Q8_0", q8_0},
    {"Q2_K", q2_k}, {"Q3_K", q3_k}, {"Q4_K", q4_k}, {"Q5_K", q5_k}, {"Q6_K", q6_k},
};

}  // namespace

void dequantise(const GgmlType& type, std::span<const std::byte> stored, std::span<float> values) {
  if (values.size() % type.elements != 0 || stored.size() != values.size() / type.elements * type.bytes) {
    throw std::invalid_argument("[dequantise] blocks and values do not match");
  }
  for (const Reader& reader : readers) {
    if (reader.type != type.name) continue;
    const auto* bytes = reinterpret_cast<const uint8_t*>(stored.data());
    for (size_t b = 0; b < values.size() / type.elements; ++b) {
      reader.block(bytes + b * type.bytes, values.data() + b * type.elements);
    }
    return;
  }
  throw std::invalid_argument("[dequantise] no blocks of type " + std::string(type.name));
}

}  // namespace hesper
