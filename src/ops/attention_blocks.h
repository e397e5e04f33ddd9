#pragma once
// The row-blocked maps of attention.h as ATen calls: any device, any precision, one whole sequence, K directions.
// The fused kernels are held against these.
#include "ops/attention.h"

namespace hesper::attention_blocks {

/// Rows of queries a block; the T x T matrices of K directions exist only for these rows.
inline constexpr int64_t block_rows = 256;

/// What the primal pass leaves, heads leading. X = one leading axis (B in the primal pass, 1 in a tangent pass).
struct HeadsTape {
  Tensor q, k, v, o, o_bar;  // (X, H, T, D); k and v repeated to H heads
  Tensor L, Dl;              // (X, H, T)
};
/// Tangents of one sequence; undefined = zero.
struct HeadsTangents {
  Tensor q, k, v, o;  // (K, H, T, D)
  Tensor r;           // (K, H, T)
};

/// (X, T, n*D) -> (X, n, T, D); with n < H each head is repeated H/n times.
Tensor split_heads(const Tensor& x, int64_t n, int64_t repeat);
/// (X, H, T, D) -> (X, T, n*D), summed over the H/n heads of a group.
Tensor join_heads(const Tensor& x, int64_t n);

void forward(HeadsTape& tape, const AttentionShape& shape);     // fills o, L
Tensors adjoint(HeadsTape& tape, const AttentionShape& shape);  // fills Dl; {q_bar, k_bar, v_bar}
void forward_tangent(const HeadsTape& tape, HeadsTangents& dot, const AttentionShape& shape);  // fills o, r
/// {q, k, v}_bar_dot (K, H, T, D). dot without r: all tangents zero. o_bar_dot may be undefined.
Tensors adjoint_tangent(const HeadsTape& tape, const HeadsTangents& dot, const Tensor& o_bar_dot,
                        const AttentionShape& shape);
/// {q, k, v}' with second-order form = sym sum x_dot_i . x'_j; 4 tile products instead of 6.
Tensors second_order(const HeadsTape& tape, const HeadsTangents& dot, const AttentionShape& shape);

/// (rows, keys) bool: true where the query at `first_row` + i must not see the key at `first_key` + j.
Tensor hidden(const AttentionShape& shape, int64_t first_row, int64_t rows, int64_t first_key, int64_t keys,
              at::Device device);

}  // namespace hesper::attention_blocks
