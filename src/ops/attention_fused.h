#pragma once
// The tangent maps of attention.h on a Hopper GPU: fp32 tangents whose products go through the tensor cores, one
// sequence, K directions, no T x T matrix in memory (cuda/attention.h; docs/kernels/attention.md). Builds without CUDA
// serve nothing.
#include "ops/attention_cpu.h"
#include "ops/tier_products.h"

namespace hesper::attention_fused {

using attention_cpu::Tangents;
using attention_cpu::Tape;

/// True for fp32 on a Hopper GPU, width at most 128, in every way of products but `full`. Scores and probabilities are
/// bf16x3 in all of them, the other products too but for `bf16`.
bool serves(const AttentionShape& shape, const Tensor& x, Products products);

/// Fills dot.o and dot.r. At least one of q, k, v is defined.
void forward_tangent(const AttentionShape& shape, const Tape& tape, Tangents& dot, Products products);
/// {q, k, v}_bar_dot, each where its bit of `wanted` is set. `dot` all undefined: the plain adjoint of o_bar_dot.
Tensors adjoint_tangent(const AttentionShape& shape, const Tape& tape, const Tangents& dot, const Tensor& o_bar_dot,
                        unsigned wanted, Products products);
/// forward_tangent, and {Q', K', V'} of attention.h where q, k, v move.
Tensors tangent_and_form(const AttentionShape& shape, const Tape& tape, Tangents& dot, Products products);

}  // namespace hesper::attention_fused
