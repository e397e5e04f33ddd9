#pragma once
// Philox (random.h) by tensor operations: a GPU makes the numbers that it needs, bit for bit those of random_block.
#include <ATen/core/Tensor.h>

#include "ops/random.h"

namespace hesper {

/// Blocks that so many entries take.
inline int64_t blocks_of(int64_t entries) { return (entries + bits_of_block - 1) / bits_of_block; }

/// random_block of each of `blocks` (m) int64, for probes [key.probe, key.probe + count): (count, m, 4) int32 on the
/// device of `blocks`.
at::Tensor random_blocks(const ProbeKey& key, int64_t count, const at::Tensor& blocks);

/// +-1 of the bits of words (..., 4) int32, lowest first: (..., 128).
at::Tensor signs_of_bits(const at::Tensor& words, at::ScalarType dtype);

}  // namespace hesper
