#pragma once
// Products of tangents with weights, in one of four ways. `full` multiplies in the working precision (product.h). The
// others serve fp32 tangents on a GPU's tensor cores: x = hi + lo with hi = bf16(x), lo = bf16(x - hi), sums always
// fp32.
//   bf16x3   hi lo' + lo hi' + hi hi' : one bf16 product over [hi | lo | hi] and [lo' | hi' | hi'], error about 2^-17
//   tf32     the cores' own rounding of fp32 factors to 11 bits
//   bf16     hi hi'
// A weight in bf16, as most checkpoints of today store it, is its own hi' and has no lo': bf16x3 then is lo hi' + hi
// hi', two thirds of the work. A left factor (rows, width) may come as fp32, or already in this form, written by the op
// that made it.
#include "ops/op.h"

namespace hesper {

enum class Products { full, bf16x3, tf32, bf16 };
std::string to_string(Products products);

/// True where left factors have a form of their own.
inline bool splits(Products products) { return products == Products::bf16x3 || products == Products::bf16; }
/// x (..., width) -> (..., 3 width) bf16 [hi | lo | hi], or (..., width) bf16; x itself for other ways and for a
/// factor.
Tensor left_factor(const Tensor& x, Products products);

/// w (k, n) -> (3k, n) bf16 [lo; hi; hi], of a bf16 one (2k, n) [w; w]; or (k, n) bf16. A transposed view is split
/// along the rows it is stored in.
Tensor right_factor(const Tensor& w, Products products);

/// x (..., k) or its left factor, times w (k, n): (..., n). `w` may be a transposed view of a stored weight, and in
/// bf16 where factors split.
Tensor times(const Tensor& x, const Tensor& w, Products products);
/// sum (..., n) += x w, x as for `times`, or (..., 2k) bf16, [hi | lo], [lo | hi] for a bf16 w; sum is contiguous.
void add_times(Tensor& sum, const Tensor& x, const Tensor& w, Products products);
/// a^T b summed over tokens, fp32: (K, m, n); a (K, tokens, m), b (K, tokens, n), one of them may lack K.
Tensor token_product(const Tensor& a, const Tensor& b, Products products);
/// a b^T of (K, m) matrices with m large, each as fp32 or as its planes (2, K, m) bf16 {hi, lo} ((1, K, m) serves
/// bf16), in pieces of a few thousand terms whose sums are added in fp64: (K, K) fp64. A long sum loses digits inside
/// one fp32 accumulator.
Tensor long_product(const Tensor& a, const Tensor& b, Products products);

}  // namespace hesper
