// Norm tangents (ops/norm.h): one block a row, the row in registers, one reduction of three sums.
#include <type_traits>

#include "ops/cuda/elementwise.h"
#include "ops/cuda/launch.cuh"

namespace hesper::cuda {
namespace {

constexpr int kRowThreads = 128;
constexpr int kWarps = kRowThreads / 32;

struct Sums {
  float a, b, c;
};

// Sums over the block, the same in every thread.
__device__ Sums block_sums(Sums s) {
  __shared__ Sums part[kWarps];
  for (int step = 16; step > 0; step /= 2) {
    s.a += __shfl_xor_sync(~0u, s.a, step);
    s.b += __shfl_xor_sync(~0u, s.b, step);
    s.c += __shfl_xor_sync(~0u, s.c, step);
  }
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = s;
  __syncthreads();
  s = part[0];
  for (int i = 1; i < kWarps; ++i) s = {s.a + part[i].a, s.b + part[i].b, s.c + part[i].c};
  return s;
}

constexpr float4 kZero{0, 0, 0, 0};

// a = mean(xh c_dot) = mean(xh x_dot) - mean(x_dot) mean(xh)
template <int kQuads, class Out>
__global__ void __launch_bounds__(kRowThreads) forward(NormRows n, const float* x_dot, float* xh_dot, float* s, Out y) {
  const int64_t row = blockIdx.y * int64_t{gridDim.z} + blockIdx.z, at = blockIdx.x * n.rows + row;
  if (row >= n.rows) return;
  const float *x = x_dot + at * n.width, *xh = n.xh + row * n.width;
  float4 v[kQuads], h[kQuads];
  Sums sums{0, 0, 0};
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    const int64_t c = (q * kRowThreads + threadIdx.x) * int64_t{4};
    v[q] = c < n.width ? load(x + c) : kZero;
    h[q] = c < n.width ? load(xh + c) : kZero;
    sums.a += sum(v[q]);
    sums.b += sum(v[q] * h[q]);
    sums.c += sum(h[q]);
  }
  sums = block_sums(sums);
  const float count = static_cast<float>(n.width), inv = n.inv[row];
  const float mean = n.centred ? sums.a / count : 0;
  const float a = (sums.b - mean * sums.c) / count;
  if (threadIdx.x == 0) s[at] = a * inv;
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    const int64_t c = (q * kRowThreads + threadIdx.x) * int64_t{4};
    if (c >= n.width) continue;
    const float4 d = (v[q] - mean - h[q] * a) * inv;
    AsFloat{xh_dot}.store(at, c, n.width, d);
    y.store(at, c, n.width, n.gain ? d * load(n.gain + c) : d);
  }
}

// As above, and the form: planes of xh_dot and m xh_dot, e = 2 u.xh_dot + C m eps inv^2 s.
template <int kQuads, class Out, class Pieces>
__global__ void __launch_bounds__(kRowThreads)
    forward_form(NormRows n, float eps, const float* x_dot, Pieces left, Pieces right, float* s, float* e, Out y) {
  const int64_t row = blockIdx.y * int64_t{gridDim.z} + blockIdx.z, at = blockIdx.x * n.rows + row;
  if (row >= n.rows) return;
  const float *x = x_dot + at * n.width, *xh = n.xh + row * n.width, *u = n.u + row * n.width;
  float4 v[kQuads], h[kQuads];
  Sums sums{0, 0, 0};
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    const int64_t c = (q * kRowThreads + threadIdx.x) * int64_t{4};
    v[q] = c < n.width ? load(x + c) : kZero;
    h[q] = c < n.width ? load(xh + c) : kZero;
    sums.a += sum(v[q]);
    sums.b += sum(v[q] * h[q]);
    sums.c += sum(h[q]);
  }
  sums = block_sums(sums);
  const float count = static_cast<float>(n.width), inv = n.inv[row], m = n.m[row];
  const float mean = n.centred ? sums.a / count : 0;
  const float a = (sums.b - mean * sums.c) / count;
  Sums along{0, 0, 0};
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    const int64_t c = (q * kRowThreads + threadIdx.x) * int64_t{4};
    if (c >= n.width) continue;
    const float4 d = (v[q] - mean - h[q] * a) * inv;
    along.a += sum(d * load(u + c));
    left.store(at, c, n.width, d);
    right.store(at, c, n.width, d * m);
    y.store(at, c, n.width, n.gain ? d * load(n.gain + c) : d);
  }
  __syncthreads();  // all have read the first sums
  along = block_sums(along);
  if (threadIdx.x == 0) {
    s[at] = a * inv;
    e[at] = 2 * along.a + count * m * eps * inv * inv * (a * inv);
  }
}

// out = sum + (u_dot - mean(u_dot) - xh_dot m - xh along - s (u - mean(u) - xh m)) inv,
// u_dot = g y_bar_dot, along = mean(xh u_dot + xh_dot u)
template <int kQuads>
__global__ void __launch_bounds__(kRowThreads)
    adjoint(NormRows n, const float* y_bar_dot, const float* xh_dot, const float* s, const float* sum_in, float* out) {
  const int64_t row = blockIdx.y * int64_t{gridDim.z} + blockIdx.z, at = blockIdx.x * n.rows + row;
  if (row >= n.rows) return;
  const float *xh = n.xh + row * n.width, *u = n.u + row * n.width;
  float4 v[kQuads], d[kQuads];
  Sums sums{0, 0, 0};
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    const int64_t c = (q * kRowThreads + threadIdx.x) * int64_t{4};
    const bool in = c < n.width;
    v[q] = in && y_bar_dot ? load(y_bar_dot + at * n.width + c) : kZero;
    if (in && y_bar_dot && n.gain) v[q] = v[q] * load(n.gain + c);
    d[q] = in && xh_dot ? load(xh_dot + at * n.width + c) : kZero;
    const float4 h = in ? load(xh + c) : kZero, w = in ? load(u + c) : kZero;
    sums.a += sum(v[q]);
    sums.b += sum(h * v[q] + d[q] * w);
    sums.c += sum(w);
  }
  sums = block_sums(sums);
  const float count = static_cast<float>(n.width), inv = n.inv[row], m = n.m[row], along = sums.b / count;
  const float mean_v = n.centred ? sums.a / count : 0, mean_u = n.centred ? sums.c / count : 0;
  const float turn = s ? s[at] : 0;
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    const int64_t c = (q * kRowThreads + threadIdx.x) * int64_t{4};
    if (c >= n.width) continue;
    const float4 h = load(xh + c), r_x_bar = load(u + c) - mean_u - h * m;
    float4 x = (v[q] - mean_v - d[q] * m - h * along - r_x_bar * turn) * inv;
    if (sum_in) x = x + load(sum_in + at * n.width + c);
    AsFloat{out}.store(at, c, n.width, x);
  }
}

template <class F>
void with_quads(int64_t width, F f) {
  const int64_t quads = (width / 4 + kRowThreads - 1) / kRowThreads;
  if (quads <= 1) return f(std::integral_constant<int, 1>());
  if (quads <= 2) return f(std::integral_constant<int, 2>());
  if (quads <= 4) return f(std::integral_constant<int, 4>());
  if (quads <= 8) return f(std::integral_constant<int, 8>());
  return f(std::integral_constant<int, 16>());
}

// Directions fastest; rows over y and z, whose extents are limited to 65535.
dim3 grid(const NormRows& n) {
  const int64_t z = (n.rows + 65534) / 65535;
  return {static_cast<unsigned>(n.directions), static_cast<unsigned>((n.rows + z - 1) / z), static_cast<unsigned>(z)};
}

}  // namespace

void norm_forward(cudaStream_t stream, const NormRows& n, const float* x_dot, float* xh_dot, float* s, void* y_dot,
                  Layout layout) {
  with_quads(n.width, [&](auto quads) {
    with_layout(layout, y_dot, [&](auto as) {
      forward<decltype(quads)::value><<<grid(n), kRowThreads, 0, stream>>>(n, x_dot, xh_dot, s, as);
    });
  });
  check_launch("norm_forward");
}

void norm_forward_form(cudaStream_t stream, const NormRows& n, float eps, const float* x_dot, Planes xh_dot,
                       Planes m_xh_dot, float* s, float* e, void* y_dot, Layout layout) {
  with_quads(n.width, [&](auto quads) {
    with_layout(layout, y_dot, [&](auto as) {
      with_planes(xh_dot, m_xh_dot, [&](auto left, auto right) {
        forward_form<decltype(quads)::value><<<grid(n), kRowThreads, 0, stream>>>(n, eps, x_dot, left, right, s, e, as);
      });
    });
  });
  check_launch("norm_forward_form");
}

void norm_adjoint(cudaStream_t stream, const NormRows& n, const float* y_bar_dot, const float* xh_dot, const float* s,
                  const float* sum, float* out) {
  with_quads(n.width, [&](auto quads) {
    adjoint<decltype(quads)::value><<<grid(n), kRowThreads, 0, stream>>>(n, y_bar_dot, xh_dot, s, sum, out);
  });
  check_launch("norm_adjoint");
}

}  // namespace hesper::cuda
