#include "ops/adjoint_start.h"

#include "ops/random.h"

namespace hesper {
namespace {

/// (256, 8): the +-1 of a byte's bits, lowest first.
Tensor signs_of_bytes(at::TensorOptions options) {
  const Tensor byte = at::arange(256, at::kLong).unsqueeze(1), bit = at::arange(8, at::kLong);
  return (2 * byte.bitwise_right_shift(bit).bitwise_and(1) - 1).to(options.device(), options.dtype().toScalarType());
}

}  // namespace

ProbeKey AdjointStart::key(uint32_t stream, int64_t probe) const {
  return {seed, stream, static_cast<uint32_t>(window), static_cast<uint32_t>(first_probe + probe)};
}

// Every token has whole blocks of its own.
Tensor AdjointStart::signs_of_words(const Tokens& tokens, int64_t vocab, int64_t begin, int64_t words,
                                    at::TensorOptions options) const {
  const auto blocks_of = [](int64_t entries) { return (entries + bits_of_block - 1) / bits_of_block; };
  const int64_t rows = tokens.rows(), blocks = blocks_of(words);
  const Tensor bytes = at::empty({count, rows, blocks * bits_of_block / 8}, at::kInt);
  auto* byte = bytes.data_ptr<int32_t>();
  for (int64_t k = 0; k < count; ++k)
    for (int64_t token = tokens.offset; token < tokens.offset + rows; ++token) {
      const int64_t first = token * blocks_of(vocab) + begin / bits_of_block;
      for (int64_t block = first; block < first + blocks; ++block)
        for (const uint32_t part : random_block(key(word_stream, k), block))
          for (int shift = 0; shift < 32; shift += 8) *byte++ = static_cast<int32_t>(part >> shift & 0xff);
    }
  const Tensor signs = signs_of_bytes(options).index_select(0, bytes.flatten().to(options.device()));
  return signs.view({count, rows, blocks * bits_of_block}).narrow(2, 0, words);
}

Tensor AdjointStart::signs_of_tokens(const Tokens& tokens, at::TensorOptions options) const {
  const Tensor signs = at::empty({count, tokens.rows(), 1}, at::kDouble);
  for (int64_t k = 0; k < count; ++k)
    fill_signs(key(token_stream, k), tokens.offset,
               std::span<double>(signs[k].data_ptr<double>(), static_cast<size_t>(tokens.rows())));
  return signs.to(options.device(), options.dtype().toScalarType());
}

Tensor AdjointStart::uniforms_of_tokens(const Tokens& tokens, at::Device device) const {
  const Tensor uniforms = at::empty({tokens.rows(), count}, at::kDouble);
  double* u = uniforms.data_ptr<double>();
  for (int64_t row = 0; row < tokens.rows(); ++row)
    for (int64_t k = 0; k < count; ++k) *u++ = uniform(key(label_stream, k), tokens.offset + row);
  return uniforms.to(device);
}

}  // namespace hesper
