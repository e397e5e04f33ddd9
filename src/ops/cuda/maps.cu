// Tangents of activations, gates and rotary embeddings: four neighbours a thread, directions fastest, so that what
// the directions share is read from the L2 cache.
#include "ops/cuda/elementwise.h"
#include "ops/cuda/launch.cuh"

namespace hesper::cuda {
namespace {

constexpr float4 kZero{0, 0, 0, 0};

/// Thread -> (direction, row, first of four columns) of a (K, rows, width) array. A block works on one direction.
struct Place {
  int64_t shared, row, column;  // element of a (rows, width) array
  int64_t at;                   // row of the (K rows, width) array
  bool inside;
};
__device__ Place place(int64_t rows, int64_t width) {
  const int64_t quads = width / 4;
  const int64_t i = (int64_t{blockIdx.y} + int64_t{blockIdx.z} * gridDim.y) * blockDim.x + threadIdx.x;
  const int64_t row = i / quads, column = i % quads * 4;
  return {i * 4, row, column, blockIdx.x * rows + row, i < rows * quads};
}
dim3 grid(int64_t directions, int64_t rows, int64_t width) {
  const int64_t blocks = (rows * (width / 4) + kThreads - 1) / kThreads, z = (blocks + 65534) / 65535;
  return {static_cast<unsigned>(directions), static_cast<unsigned>((blocks + z - 1) / z), static_cast<unsigned>(z)};
}

struct Terms {
  const float *x[3], *w[3];
};
template <int kCount, class Out>
__global__ void sum_of(int64_t rows, int64_t width, Terms t, Out out) {
  const Place p = place(rows, width);
  if (!p.inside) return;
  const int64_t at = p.at * width + p.column;
  float4 v = kZero;
#pragma unroll
  for (int i = 0; i < kCount; ++i) v = v + load(t.x[i] + at) * load(t.w[i] + p.shared);
  out.store(p.at, p.column, width, v);
}

template <class Out>
__global__ void gate(int64_t rows, int64_t width, const float* h, const float* a_dot, const float* u_dot,
                     const float* a, const float* u, const float* aa, const float* au, Out a_out, Out u_out) {
  const Place p = place(rows, width);
  if (!p.inside) return;
  const int64_t at = p.at * width + p.column;
  const float4 y = load(h + at), da = a_dot ? load(a_dot + at) : kZero, du = u_dot ? load(u_dot + at) : kZero;
  const float4 mixed = load(au + p.shared);
  float4 first = load(a + p.shared) * y + mixed * du;
  if (aa) first = first + load(aa + p.shared) * da;
  a_out.store(p.at, p.column, width, first);
  u_out.store(p.at, p.column, width, load(u + p.shared) * y + mixed * da);
}

template <class Out, class Pieces>
__global__ void gate_form(int64_t rows, int64_t width, const float* a_dot, const float* u_dot, const float* a,
                          const float* u, const float* aa, const float* au, Pieces left, Pieces right, Out out) {
  const Place p = place(rows, width);
  if (!p.inside) return;
  const int64_t at = p.at * width + p.column;
  const float4 da = load(a_dot + at);
  float4 y = load(a + p.shared) * da, second = aa ? load(aa + p.shared) * da : kZero;
  if (u_dot) {
    const float4 du = load(u_dot + at);
    y = y + load(u + p.shared) * du;
    second = second + load(au + p.shared) * du * 2;
  }
  left.store(p.at, p.column, width, da);
  right.store(p.at, p.column, width, second);
  out.store(p.at, p.column, width, y);
}

// Channels (i, i + half) of a head turn by the angle of (row, i); a thread takes i .. i+3 of one head.
template <class Out>
__global__ void turn(int64_t rows, int64_t heads, int64_t half, const float* x, const float* cos, const float* sin,
                     float sign, Out out) {
  const int64_t width = heads * half * 2;
  const Place p = place(rows, heads * half);
  if (!p.inside) return;
  const int64_t head = p.column / half, i = p.column % half, column = head * 2 * half + i;
  const float4 c = load(cos + p.row * half + i), s = load(sin + p.row * half + i) * sign;
  const float4 a = load(x + p.at * width + column), b = load(x + p.at * width + column + half);
  out.store(p.at, column, width, a * c - b * s);
  out.store(p.at, column + half, width, b * c + a * s);
}

}  // namespace

void weighted_sum(cudaStream_t stream, int64_t directions, int64_t rows, int64_t width, int count,
                  const float* const* x, const float* const* w, void* out, Layout layout) {
  Terms t{};
  for (int i = 0; i < count; ++i) t.x[i] = x[i], t.w[i] = w[i];
  const dim3 blocks = grid(directions, rows, width);
  with_layout(layout, out, [&](auto as) {
    if (count == 1) sum_of<1><<<blocks, kThreads, 0, stream>>>(rows, width, t, as);
    if (count == 2) sum_of<2><<<blocks, kThreads, 0, stream>>>(rows, width, t, as);
    if (count == 3) sum_of<3><<<blocks, kThreads, 0, stream>>>(rows, width, t, as);
  });
  check_launch("weighted_sum");
}

void gate_adjoint(cudaStream_t stream, int64_t directions, int64_t rows, int64_t width, const float* h,
                  const float* a_dot, const float* u_dot, const float* a, const float* u, const float* aa,
                  const float* au, void* a_out, void* u_out, Layout layout) {
  with_layout(layout, a_out, [&](auto as) {
    auto other = as;
    other.out = static_cast<decltype(as.out)>(u_out);
    gate<<<grid(directions, rows, width), kThreads, 0, stream>>>(rows, width, h, a_dot, u_dot, a, u, aa, au, as, other);
  });
  check_launch("gate_adjoint");
}

void gate_forward_form(cudaStream_t stream, int64_t directions, int64_t rows, int64_t width, const float* a_dot,
                       const float* u_dot, const float* a, const float* u, const float* aa, const float* au,
                       Planes left, Planes right, void* y_out, Layout layout) {
  with_layout(layout, y_out, [&](auto as) {
    with_planes(left, right, [&](auto first, auto second) {
      gate_form<<<grid(directions, rows, width), kThreads, 0, stream>>>(rows, width, a_dot, u_dot, a, u, aa, au, first,
                                                                        second, as);
    });
  });
  check_launch("gate_forward_form");
}

void rotary(cudaStream_t stream, int64_t directions, int64_t rows, int64_t heads, int64_t half, const float* x,
            const float* cos, const float* sin, float sign, void* out, Layout layout) {
  with_layout(layout, out, [&](auto as) {
    turn<<<grid(directions, rows, heads * half), kThreads, 0, stream>>>(rows, heads, half, x, cos, sin, sign, as);
  });
  check_launch("rotary");
}

}  // namespace hesper::cuda
