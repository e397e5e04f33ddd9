#include "hessian/probes.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace hesper {
namespace {

constexpr int64_t kBits = 128;  // of one call

std::array<uint32_t, 4> block_of(const ProbeKey& key, int64_t block) {
  return philox4x32({static_cast<uint32_t>(block), key.stream, key.window, key.probe},
                    {static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)});
}

bool bit_of(const std::array<uint32_t, 4>& block, int64_t place) {
  return (block[place / 32] >> (place % 32) & 1u) != 0;
}

template <typename T>
void fill(const ProbeKey& key, int64_t begin, T* out, int64_t count) {
  for (int64_t i = 0; i < count;) {
    const int64_t entry = begin + i, place = entry % kBits, end = std::min(count, i + kBits - place);
    const std::array<uint32_t, 4> block = block_of(key, entry / kBits);
    for (int64_t p = place; i < end; ++i, ++p) out[i] = bit_of(block, p) ? T(1) : T(-1);
  }
}

/// Entries in any order; neighbours in one block share a call.
template <typename T>
void fill_at(const ProbeKey& key, std::span<const int64_t> entries, T* out) {
  int64_t have = -1;
  std::array<uint32_t, 4> block{};
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i] / kBits != have) block = block_of(key, have = entries[i] / kBits);
    out[i] = bit_of(block, entries[i] % kBits) ? T(1) : T(-1);
  }
}

template <typename T>
at::Tensor make_probes(const Selection& selection, uint64_t seed, int64_t window, int64_t first, int64_t count) {
  at::Tensor v = at::empty({count, selection.size()}, c10::CppTypeToScalarType<T>::value);
  for (const SelectedPart& part : selection.parts()) {
    const at::Tensor flat = part.flat.to(at::kCPU).contiguous();
    const std::span<const int64_t> entries(flat.const_data_ptr<int64_t>(), static_cast<size_t>(part.size));
    at::parallel_for(0, count, 1, [&](int64_t low, int64_t high) {
      for (int64_t k = low; k < high; ++k) {
        const ProbeKey key{seed, static_cast<uint32_t>(part.parameter), static_cast<uint32_t>(window),
                           static_cast<uint32_t>(first + k)};
        T* row = v.mutable_data_ptr<T>() + k * selection.size() + part.begin;
        if (part.whole)
          fill(key, 0, row, part.size);
        else
          fill_at(key, entries, row);
      }
    });
  }
  return v;
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

void fill_signs(const ProbeKey& key, int64_t begin, std::span<double> out) {
  fill(key, begin, out.data(), static_cast<int64_t>(out.size()));
}
void fill_signs(const ProbeKey& key, int64_t begin, std::span<float> out) {
  fill(key, begin, out.data(), static_cast<int64_t>(out.size()));
}

double uniform(const ProbeKey& key, int64_t entry) {
  const std::array<uint32_t, 4> block = block_of(key, entry);
  const uint64_t bits = uint64_t{block[1]} << 32 | block[0];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

at::Tensor rademacher(const Selection& selection, uint64_t seed, int64_t window, int64_t first, int64_t count,
                      at::ScalarType dtype) {
  constexpr int64_t most = std::numeric_limits<uint32_t>::max();
  if (window > most || first + count > most)
    throw std::invalid_argument(
        fmt::format("[probes] window {} or probe {} is beyond {}", window, first + count, most));
  return dtype == at::kDouble ? make_probes<double>(selection, seed, window, first, count)
                              : make_probes<float>(selection, seed, window, first, count);
}

}  // namespace hesper
