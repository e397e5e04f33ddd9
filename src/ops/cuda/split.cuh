#pragma once
// fp32 -> bf16 pieces, and the ways a kernel writes its result: fp32, or the left factor of a product
// (tier_products.h).
#include <cuda_bf16.h>

#include <cstdint>

namespace hesper::cuda {

using Bf16 = __nv_bfloat16;

/// Four neighbours of a row as 8 bytes.
struct alignas(8) Bf16x4 {
  Bf16 x, y, z, w;
};
__device__ inline Bf16x4 high(float4 v) {
  return {__float2bfloat16_rn(v.x), __float2bfloat16_rn(v.y), __float2bfloat16_rn(v.z), __float2bfloat16_rn(v.w)};
}
__device__ inline Bf16x4 low(float4 v, Bf16x4 h) {
  return high(make_float4(v.x - __bfloat162float(h.x), v.y - __bfloat162float(h.y), v.z - __bfloat162float(h.z),
                          v.w - __bfloat162float(h.w)));
}

/// Where results go: row r, columns c .. c+3 of a (rows, width) result.
struct AsFloat {
  float* out;
  __device__ void store(int64_t row, int64_t column, int64_t width, float4 v) const {
    *reinterpret_cast<float4*>(out + row * width + column) = v;
  }
};
struct AsBf16 {  // (rows, width)
  Bf16* out;
  __device__ void store(int64_t row, int64_t column, int64_t width, float4 v) const {
    *reinterpret_cast<Bf16x4*>(out + row * width + column) = high(v);
  }
};
struct AsBf16x3 {  // (rows, 3 width) [hi | lo | hi]
  Bf16* out;
  __device__ void store(int64_t row, int64_t column, int64_t width, float4 v) const {
    const Bf16x4 h = high(v);
    Bf16* at = out + row * 3 * width + column;
    *reinterpret_cast<Bf16x4*>(at) = h;
    *reinterpret_cast<Bf16x4*>(at + width) = low(v, h);
    *reinterpret_cast<Bf16x4*>(at + 2 * width) = h;
  }
};
struct AsPlanes {  // hi (rows, width) and lo (rows, width)
  Bf16 *hi, *lo;
  __device__ void store(int64_t row, int64_t column, int64_t width, float4 v) const {
    const Bf16x4 h = high(v);
    *reinterpret_cast<Bf16x4*>(hi + row * width + column) = h;
    *reinterpret_cast<Bf16x4*>(lo + row * width + column) = low(v, h);
  }
};

__device__ inline float4 load(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ inline float4 operator*(float4 a, float4 b) { return {a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w}; }
__device__ inline float4 operator*(float4 a, float b) { return {a.x * b, a.y * b, a.z * b, a.w * b}; }
__device__ inline float4 operator+(float4 a, float4 b) { return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w}; }
__device__ inline float4 operator-(float4 a, float4 b) { return {a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w}; }
__device__ inline float4 operator-(float4 a, float b) { return {a.x - b, a.y - b, a.z - b, a.w - b}; }
__device__ inline float sum(float4 a) { return (a.x + a.y) + (a.z + a.w); }

}  // namespace hesper::cuda
