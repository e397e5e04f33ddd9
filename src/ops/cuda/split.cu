// Splits of fp32 arrays into bf16 pieces.
#include "ops/cuda/elementwise.h"
#include "ops/cuda/launch.cuh"

namespace hesper::cuda {
namespace {

template <class Out>
__global__ void split_rows(const float* x, int64_t rows, int64_t width, Out out) {
  const int64_t quads = width / 4, i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= rows * quads) return;
  const int64_t row = i / quads, column = i % quads * 4;
  out.store(row, column, width, load(x + row * width + column));
}

// Any width: one element a thread, element (r, c) of plane p at p * plane + r * row + c; plane `lo` holds the low part.
__global__ void split_any(const float* x, int64_t rows, int64_t width, Bf16* out, int planes, int lo, int64_t plane,
                          int64_t row_step) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= rows * width) return;
  const float v = x[i];
  const Bf16 h = __float2bfloat16_rn(v);
  Bf16* at = out + i / width * row_step + i % width;
  for (int p = 0; p < planes; ++p) at[p * plane] = p == lo ? __float2bfloat16_rn(v - __bfloat162float(h)) : h;
}

__global__ void split_weight_quads(const float* w, int64_t rows, int64_t width, Bf16* out, int64_t plane,
                                   int64_t row_step) {
  const int64_t quads = width / 4, i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= rows * quads) return;
  const int64_t row = i / quads, column = i % quads * 4;
  const float4 v = load(w + row * width + column);
  const Bf16x4 h = high(v);
  Bf16* at = out + row * row_step + column;
  *reinterpret_cast<Bf16x4*>(at) = low(v, h);
  *reinterpret_cast<Bf16x4*>(at + plane) = h;
  *reinterpret_cast<Bf16x4*>(at + 2 * plane) = h;
}

__global__ void split_flat(const float* x, int64_t quads, Bf16* hi, Bf16* lo) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= quads) return;
  const float4 v = load(x + i * 4);
  const Bf16x4 h = high(v);
  *reinterpret_cast<Bf16x4*>(hi + i * 4) = h;
  *reinterpret_cast<Bf16x4*>(lo + i * 4) = low(v, h);
}

}  // namespace

void split(cudaStream_t stream, const float* x, int64_t rows, int64_t width, void* out, Layout layout) {
  if (width % 4 == 0) {
    with_layout(layout, out,
                [&](auto as) { split_rows<<<blocks_of(rows * width / 4), kThreads, 0, stream>>>(x, rows, width, as); });
  } else {
    const int planes = layout == Layout::bf16x3 ? 3 : 1;
    split_any<<<blocks_of(rows * width), kThreads, 0, stream>>>(x, rows, width, static_cast<Bf16*>(out), planes, 1,
                                                                width, planes * width);
  }
  check_launch("split");
}

void split_weight(cudaStream_t stream, const float* w, int64_t rows, int64_t width, void* out, int64_t plane,
                  int64_t row) {
  if (width % 4 == 0)
    split_weight_quads<<<blocks_of(rows * width / 4), kThreads, 0, stream>>>(w, rows, width, static_cast<Bf16*>(out),
                                                                             plane, row);
  else
    split_any<<<blocks_of(rows * width), kThreads, 0, stream>>>(w, rows, width, static_cast<Bf16*>(out), 3, 0, plane,
                                                                row);
  check_launch("split_weight");
}

void split_planes(cudaStream_t stream, const float* x, int64_t size, void* hi, void* lo) {
  auto *high = static_cast<Bf16*>(hi), *low = static_cast<Bf16*>(lo);
  if (size % 4 == 0)
    split_flat<<<blocks_of(size / 4), kThreads, 0, stream>>>(x, size / 4, high, low);
  else  // two planes of one row
    split_any<<<blocks_of(size), kThreads, 0, stream>>>(x, 1, size, high, 2, 1, low - high, size);
  check_launch("split_planes");
}

}  // namespace hesper::cuda
