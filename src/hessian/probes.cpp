#include "hessian/probes.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <limits>
#include <stdexcept>

#include "ops/random_tensors.h"

namespace hesper {
namespace {

/// Entries in any order; neighbours in one block share a call.
template <typename T>
void fill_at(const ProbeKey& key, std::span<const int64_t> entries, T* out) {
  int64_t have = -1;
  std::array<uint32_t, 4> block{};
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i] / bits_of_block != have) block = random_block(key, have = entries[i] / bits_of_block);
    const int64_t place = entries[i] % bits_of_block;
    out[i] = (block[place / 32] >> (place % 32) & 1u) != 0 ? T(1) : T(-1);
  }
}

template <typename T>
at::Tensor make_probes(const Selection& selection, uint64_t seed, int64_t window, int64_t first, int64_t count) {
  at::Tensor v = at::empty({count, selection.size()}, c10::CppTypeToScalarType<T>::value);
  for (const SelectedPart& part : selection.parts()) {
    const at::Tensor flat = part.whole ? at::Tensor() : part.flat.to(at::kCPU).contiguous();
    at::parallel_for(0, count, 1, [&](int64_t low, int64_t high) {
      for (int64_t k = low; k < high; ++k) {
        const ProbeKey key{seed, static_cast<uint32_t>(part.parameter), static_cast<uint32_t>(window),
                           static_cast<uint32_t>(first + k)};
        T* row = v.mutable_data_ptr<T>() + k * selection.size() + part.begin;
        if (part.whole)
          fill_signs(key, 0, std::span<T>(row, static_cast<size_t>(part.size)));
        else
          fill_at(key, {flat.const_data_ptr<int64_t>(), static_cast<size_t>(part.size)}, row);
      }
    });
  }
  return v;
}

}  // namespace

at::Tensor rademacher_by_tensors(const Selection& selection, uint64_t seed, int64_t window, int64_t first,
                                 int64_t count, at::ScalarType dtype, at::Device device) {
  const at::Tensor v = at::empty({count, selection.size()}, at::TensorOptions(dtype).device(device));
  for (const SelectedPart& part : selection.parts()) {
    const ProbeKey key{seed, static_cast<uint32_t>(part.parameter), static_cast<uint32_t>(window),
                       static_cast<uint32_t>(first)};
    const at::Tensor mine = v.narrow(1, part.begin, part.size);
    if (part.whole) {
      const auto numbers = at::TensorOptions(at::kLong).device(device);
      const at::Tensor words = random_blocks(key, count, at::arange(blocks_of(part.size), numbers));
      for (int64_t k = 0; k < count; ++k)
        mine[k].copy_(signs_of_bits(words[k], dtype).flatten().narrow(0, 0, part.size));
    } else {
      const at::Tensor flat = part.flat.to(device), place = flat.remainder(bits_of_block).unsqueeze(0);
      const at::Tensor words = random_blocks(key, count, flat.floor_divide(bits_of_block));
      const at::Tensor at_word = place.floor_divide(32).unsqueeze(2).expand({count, part.size, 1});
      const at::Tensor bits = words.gather(2, at_word).squeeze(2).bitwise_right_shift(place.remainder(32).to(at::kInt));
      mine.copy_(bits.bitwise_and(1).mul_(2).sub_(1));
    }
  }
  return v;
}

at::Tensor rademacher(const Selection& selection, uint64_t seed, int64_t window, int64_t first, int64_t count,
                      at::ScalarType dtype, at::Device device) {
  constexpr int64_t most = std::numeric_limits<uint32_t>::max();
  if (window > most || first + count > most)
    throw std::invalid_argument(
        fmt::format("[probes] window {} or probe {} is beyond {}", window, first + count, most));
  if (!device.is_cpu()) return rademacher_by_tensors(selection, seed, window, first, count, dtype, device);
  return dtype == at::kDouble ? make_probes<double>(selection, seed, window, first, count)
                              : make_probes<float>(selection, seed, window, first, count);
}

}  // namespace hesper
