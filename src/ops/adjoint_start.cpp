#include "ops/adjoint_start.h"

#include <ATen/Parallel.h>

#include "ops/random_tensors.h"

namespace hesper {

ProbeKey AdjointStart::key(uint32_t stream, int64_t probe) const {
  return {seed, stream, static_cast<uint32_t>(window), static_cast<uint32_t>(first_probe + probe)};
}

// Every token has whole blocks of its own.
Tensor AdjointStart::signs_of_words(const Tokens& tokens, int64_t vocab, int64_t begin, int64_t words,
                                    at::TensorOptions options) const {
  const int64_t rows = tokens.rows(), blocks = blocks_of(words), first = begin / bits_of_block;
  const at::ScalarType dtype = options.dtype().toScalarType();
  Tensor bits;  // (K, rows, blocks, 4) int32
  if (options.device().is_cpu()) {
    bits = at::empty({count, rows, blocks, 4}, at::kInt);
    at::parallel_for(0, count * rows, 1, [&](int64_t low, int64_t high) {
      for (int64_t i = low; i < high; ++i) {
        const int64_t at = (tokens.offset + i % rows) * blocks_of(vocab) + first;
        auto* word = bits.data_ptr<int32_t>() + i * blocks * 4;
        for (int64_t block = at; block < at + blocks; ++block)
          for (const uint32_t part : random_block(key(word_stream, i / rows), block))
            *word++ = static_cast<int32_t>(part);
      }
    });
  } else {
    const auto numbers = at::TensorOptions(at::kLong).device(options.device());
    const Tensor token = at::arange(tokens.offset, tokens.offset + rows, numbers).mul_(blocks_of(vocab)).add_(first);
    const Tensor all = token.unsqueeze(1) + at::arange(blocks, numbers);
    bits = random_blocks(key(word_stream, 0), count, all.flatten()).view({count, rows, blocks, 4});
  }
  return signs_of_bits(bits, dtype).view({count, rows, blocks * bits_of_block}).narrow(2, 0, words);
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
