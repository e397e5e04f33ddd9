#pragma once
// Fused forms of the tangent maps between products, for fp32 tangents on a CUDA device: every tangent is read once and
// written once, as fp32 or as the left factor of the product that reads it (tier_products.h). Each has its composed
// twin in the op that calls it. Builds without CUDA serve nothing.
#include "ops/tier_products.h"

namespace hesper::fused {

/// True for fp32 tensors on a CUDA device of the architecture that the kernels are for, Hopper, in a CUDA build. Widths
/// must be multiples of 4 where said.
bool serves(const Tensor& x);
bool serves(at::Device device);

/// x (..., width) -> (..., 3 width) bf16 [hi | lo | hi].
Tensor split(const Tensor& x);
/// w (r, c) -> [lo, hi, hi] along an axis: (3r, c) or (r, 3c).
Tensor split_weight(const Tensor& w, int64_t axis);
/// x (K, m) -> {hi, lo} (K, m) bf16 each.
Tensors planes(const Tensor& x);

/// How an output is written: fp32, or a left factor of that way of products.
enum class As { fp32, bf16x3, bf16 };
inline As as(bool factor, Products products) {
  return !factor ? As::fp32 : products == Products::bf16x3 ? As::bf16x3 : As::bf16;
}

/// True where the norm kernels serve rows of this tensor: width a multiple of 4, at most 8192.
bool serves_norm(const Tensor& x);
struct NormTape {
  Tensor xh, inv;  // (rows, C), (rows, 1)
  Tensor u, m;     // (rows, C), (rows, 1)
  Tensor gain;     // (C) or undefined
  bool centred;    // layer norm
};
struct NormTangent {
  Tensor xh_dot, s, y_dot;  // (K, rows, C), (K, rows, 1), (K, rows, C) or its factor
};
/// norm.h's forward_tangent of x_dot (K, rows, C), gain and bias at rest.
NormTangent norm_forward(const NormTape& tape, const Tensor& x_dot, As as);
/// The same in a Gram pass, with the terms of the second-order form: C_ij -= left_i . right_j + s_i e_j, where
/// left = xh_dot, right = m xh_dot as planes, e = 2 u.xh_dot + C m k s.
struct NormForm {
  Tensor y_dot, left, right;  // (K, rows, C) or its factor; (2, K, rows C) bf16 {hi, lo}, {hi} alone in bf16
  Tensor s, e;                // (K, rows)
};
NormForm norm_forward_form(const NormTape& tape, double eps, const Tensor& x_dot, As as, Products products);
/// norm.h's x_bar_dot of y_bar_dot (K, rows, C), plus `sum` of that shape. xh_dot and s, y_bar_dot or sum may be
/// undefined (zero); `sum` may be overwritten by the result.
Tensor norm_adjoint(const NormTape& tape, const Tensor& y_bar_dot, const Tensor& xh_dot, const Tensor& s,
                    const Tensor& sum);

/// True where the maps below serve: width a multiple of 4.
bool serves_map(const Tensor& x);
/// sum_i x_i w_i, x_i (K, rows, F) and w_i (rows, F); a term with an undefined part is zero. At least one is defined.
Tensor weighted_sum(const std::vector<std::pair<Tensor, Tensor>>& terms, As as);
/// activation.h's adjoint_tangent of a gate: {a_bar_dot, u_bar_dot}. h (K, rows, F) defined; a_dot, u_dot, aa may be
/// undefined.
Tensors gate_adjoint(const Tensor& h, const Tensor& a_dot, const Tensor& u_dot, const Tensor& a, const Tensor& u,
                     const Tensor& aa, const Tensor& au, As as);
/// activation.h's forward_tangent of a gate in a Gram pass, y_dot = a_dot a + u_dot u, with the planes of its form:
/// C_ij += left_i . right_j, left = a_dot, right = aa a_dot + 2 au u_dot. u_dot, u and au undefined: no gate; aa may be
/// undefined beside them.
struct GateForm {
  Tensor y_dot, left, right;  // shapes as of NormForm
};
GateForm gate_forward_form(const Tensor& a_dot, const Tensor& u_dot, const Tensor& a, const Tensor& u, const Tensor& aa,
                           const Tensor& au, As as, Products products);
/// The turn of wiring.h's Rotary of x (K, rows, heads D): cos, sin (rows, D/2); D a multiple of 8.
Tensor rotary(const Tensor& x, const Tensor& cos, const Tensor& sin, bool back, As as);

/// The head's map of logits tangents in the product that makes them, y = f (x_dot u^T - mean): z_dot = x_dot u^T never
/// leaves the accumulators. left: x_dot (K, rows, C) as its left factor; u (n, C), n words, fp32 or bf16; f (rows, n),
/// mean (K, rows, 1).
bool serves_logits(const Tensor& x_dot, int64_t words, Products products);  // factors, C and words multiples of 8
/// y as the left factor (K rows, 2n) bf16, [hi | lo], [lo | hi] where u is bf16; or (K rows, n) bf16.
Tensor logits_factor(const Tensor& left, const Tensor& u, const Tensor& f, const Tensor& mean, Products products);
/// y as planes (2, K, rows n) bf16 {hi, lo}, or {hi} alone.
Tensor logits_planes(const Tensor& left, const Tensor& u, const Tensor& f, const Tensor& mean, Products products);

}  // namespace hesper::fused
