#pragma once
// Launchers of the fused elementwise kernels: raw pointers, fp32 unless said, row-major, widths multiples of 4, 16-byte
// aligned. K directions of `rows` tokens each; what has no K is shared by all of them and stays in the L2 cache,
// because the direction is the fastest index of a grid. Formulas: the headers of the ops. Null pointers are zeros where
// said.
#include <cuda_runtime_api.h>

#include <cstdint>

namespace hesper::cuda {

/// How a result is written: fp32, the left factor [hi | lo | hi] or hi alone, bf16.
enum class Layout { fp32, bf16x3, bf16 };

/// x (rows, width) -> out as `layout`; width need not be a multiple of 4.
void split(cudaStream_t stream, const float* x, int64_t rows, int64_t width, void* out, Layout layout);
/// w (rows, width) -> three planes lo, hi, hi; element (r, c) of plane i goes to out[i * plane + r * row + c].
void split_weight(cudaStream_t stream, const float* w, int64_t rows, int64_t width, void* out, int64_t plane,
                  int64_t row);
/// x (size) -> hi, lo (size) each.
void split_planes(cudaStream_t stream, const float* x, int64_t size, void* hi, void* lo);

struct NormRows {
  int64_t directions, rows, width;
  bool centred;                          // layer norm
  const float *xh, *inv, *u, *m, *gain;  // (rows, C), (rows), (rows, C), (rows), (C) or null: 1
};
/// x_dot (K, rows, C) -> xh_dot (K, rows, C), s (K, rows), y_dot as `layout`.
void norm_forward(cudaStream_t stream, const NormRows& n, const float* x_dot, float* xh_dot, float* s, void* y_dot,
                  Layout layout);
/// The same, with the planes of xh_dot and m xh_dot (hi and, unless null, lo; (K, rows, C) each) in xh_dot's place, and
/// e (K, rows) = 2 u.xh_dot + C m eps inv^2 s.
struct Planes {
  void *hi, *lo;
};
void norm_forward_form(cudaStream_t stream, const NormRows& n, float eps, const float* x_dot, Planes xh_dot,
                       Planes m_xh_dot, float* s, float* e, void* y_dot, Layout layout);
/// out (K, rows, C) = sum + x_bar_dot. y_bar_dot, xh_dot with s, or sum may be null; out may be sum.
void norm_adjoint(cudaStream_t stream, const NormRows& n, const float* y_bar_dot, const float* xh_dot, const float* s,
                  const float* sum, float* out);

/// out (K, rows, F) = sum_i x[i] w[i] over `count` <= 3 terms, x[i] (K, rows, F), w[i] (rows, F).
void weighted_sum(cudaStream_t stream, int64_t directions, int64_t rows, int64_t width, int count,
                  const float* const* x, const float* const* w, void* out, Layout layout);
/// a_out = a h + aa a_dot + au u_dot, u_out = u h + au a_dot; a_dot, u_dot, aa may be null.
void gate_adjoint(cudaStream_t stream, int64_t directions, int64_t rows, int64_t width, const float* h,
                  const float* a_dot, const float* u_dot, const float* a, const float* u, const float* aa,
                  const float* au, void* a_out, void* u_out, Layout layout);
/// y_out = a a_dot + u u_dot, planes of a_dot and of aa a_dot + 2 au u_dot; u_dot with u and au, and aa may be null.
void gate_forward_form(cudaStream_t stream, int64_t directions, int64_t rows, int64_t width, const float* a_dot,
                       const float* u_dot, const float* a, const float* u, const float* aa, const float* au,
                       Planes left, Planes right, void* y_out, Layout layout);
/// x (K, rows, heads D) turned by the angles whose cosine and sine are (rows, D/2); sign -1: back. D a multiple of 8.
void rotary(cudaStream_t stream, int64_t directions, int64_t rows, int64_t heads, int64_t half, const float* x,
            const float* cos, const float* sin, float sign, void* out, Layout layout);

}  // namespace hesper::cuda
