#include "ops/adjoint_start.h"

#include "ops/philox.h"

namespace hesper {
namespace {

constexpr int64_t kBits = 128;  // of one call of Philox

// What the entries of a block number; smaller streams are the numbers of parameters.
constexpr uint32_t kTokenStream = 0xffff0000, kWordStream = 0xffff0001, kLabelStream = 0xffff0002;

std::array<uint32_t, 4> random(const AdjointStart& start, uint32_t stream, int64_t probe, int64_t block) {
  return philox4x32({static_cast<uint32_t>(block), stream, static_cast<uint32_t>(start.window),
                     static_cast<uint32_t>(start.first_probe + probe)},
                    {static_cast<uint32_t>(start.seed), static_cast<uint32_t>(start.seed >> 32)});
}

/// (256, 8): the +-1 of a byte's bits, lowest first.
Tensor signs_of_bytes(at::TensorOptions options) {
  const Tensor byte = at::arange(256, at::kLong).unsqueeze(1), bit = at::arange(8, at::kLong);
  return (2 * byte.bitwise_right_shift(bit).bitwise_and(1) - 1).to(options.device(), options.dtype().toScalarType());
}

}  // namespace

// Every token has whole blocks of its own.
Tensor AdjointStart::signs_of_words(const Tokens& tokens, int64_t vocab, int64_t begin, int64_t words,
                                    at::TensorOptions options) const {
  const int64_t rows = tokens.rows(), blocks = (words + kBits - 1) / kBits, each = (vocab + kBits - 1) / kBits;
  const Tensor bytes = at::empty({count, rows, blocks * kBits / 8}, at::kInt);
  auto* at_byte = bytes.data_ptr<int32_t>();
  for (int64_t k = 0; k < count; ++k)
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t block = 0; block < blocks; ++block)
        for (const uint32_t part : random(*this, kWordStream, k, (tokens.offset + row) * each + begin / kBits + block))
          for (int shift = 0; shift < 32; shift += 8) *at_byte++ = static_cast<int32_t>(part >> shift & 0xff);
  const Tensor signs = signs_of_bytes(options).index_select(0, bytes.flatten().to(options.device()));
  return signs.view({count, rows, blocks * kBits}).narrow(2, 0, words);
}

Tensor AdjointStart::signs_of_tokens(const Tokens& tokens, at::TensorOptions options) const {
  const Tensor signs = at::empty({count, tokens.rows(), 1}, at::kDouble);
  double* sign = signs.data_ptr<double>();
  for (int64_t k = 0; k < count; ++k)
    for (int64_t token = tokens.offset; token < tokens.offset + tokens.rows(); ++token) {
      const uint32_t part = random(*this, kTokenStream, k, token / kBits)[token % kBits / 32];
      *sign++ = (part >> token % 32 & 1u) != 0 ? 1 : -1;
    }
  return signs.to(options.device(), options.dtype().toScalarType());
}

Tensor AdjointStart::uniforms_of_tokens(const Tokens& tokens, at::Device device) const {
  const Tensor uniforms = at::empty({tokens.rows(), count}, at::kDouble);
  double* u = uniforms.data_ptr<double>();
  for (int64_t row = 0; row < tokens.rows(); ++row)
    for (int64_t k = 0; k < count; ++k) {
      const auto bits = random(*this, kLabelStream, k, tokens.offset + row);
      *u++ = static_cast<double>((uint64_t{bits[1]} << 32 | bits[0]) >> 11) * 0x1p-53;
    }
  return uniforms.to(device);
}

}  // namespace hesper
