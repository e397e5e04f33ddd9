#include "ops/random_tensors.h"

#include <ATen/ATen.h>

namespace hesper {
namespace {

using at::Tensor;

// 32-bit numbers in int64, whose products wrap at 64 bits as unsigned ones do.
constexpr int64_t kMask = 0xffffffff;
Tensor low(const Tensor& x) { return x.bitwise_and(kMask); }
Tensor high(const Tensor& x) { return x.bitwise_right_shift(32).bitwise_and_(kMask); }

/// (256, 8): the +-1 of a byte's bits.
Tensor signs_of_bytes(at::Device device, at::ScalarType dtype) {
  const Tensor byte = at::arange(256, at::kLong).unsqueeze(1), bit = at::arange(8, at::kLong);
  return (2 * byte.bitwise_right_shift(bit).bitwise_and(1) - 1).to(device, dtype);
}

}  // namespace

Tensor random_blocks(const ProbeKey& key, int64_t count, const Tensor& blocks) {
  const auto number = [&](int64_t x) { return at::full({1, 1}, x, blocks.options()); };
  Tensor a = low(blocks).unsqueeze(0), b = number(key.stream), c = number(key.window);
  Tensor d = low(at::arange(count, blocks.options()).add_(static_cast<int64_t>(key.probe))).unsqueeze(1);
  uint32_t k = static_cast<uint32_t>(key.seed), l = static_cast<uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {  // philox4x32's
    const Tensor p = a * int64_t{0xD2511F53}, q = c * int64_t{0xCD9E8D57};
    a = high(q).bitwise_xor(b).bitwise_xor_(int64_t{k}), b = low(q);
    c = high(p).bitwise_xor(d).bitwise_xor_(int64_t{l}), d = low(p);
    k += 0x9E3779B9u, l += 0xBB67AE85u;
  }
  const Tensor out = at::empty({count, blocks.numel(), 4}, blocks.options().dtype(at::kInt));
  const Tensor words[] = {a, b, c, d};
  for (int64_t i = 0; i < 4; ++i) out.select(2, i).copy_(words[i].expand({count, blocks.numel()}));
  return out;
}

Tensor signs_of_bits(const Tensor& words, at::ScalarType dtype) {
  const Tensor bytes = words.contiguous().view(at::kByte).flatten().to(at::kInt);
  std::vector<int64_t> shape = words.sizes().vec();
  shape.back() = bits_of_block;
  return signs_of_bytes(words.device(), dtype).index_select(0, bytes).view(shape);
}

}  // namespace hesper
