#pragma once
// Tiles of the attention kernels: 64 rows of one head in bf16, hi and lo, as wgmma reads them from shared memory, and
// their products. A tile in memory: hi then lo, each one or two blocks of 64 columns, each block its rows of 128 bytes,
// 16-byte chunks swizzled by row % 8. Device memory holds the same image, so that a tile is one bulk copy.
#include "ops/cuda/attention_sizes.h"
#include "ops/cuda/hopper.cuh"

namespace hesper::attention_cuda {

/// Tiles of one tensor, ((directions,) heads, blocks). A direction stride of 0: a value shared by all directions.
struct Plane {
  const char* data = nullptr;
  int64_t direction_stride = 0, head_stride = 0;  // bytes

  __device__ const char* head(int direction, int head) const {
    return data + direction * direction_stride + head * head_stride;
  }
};

template <int D, int Rows = kBlock>
struct Tile {
  static constexpr int column_blocks = (D + 63) / 64;
  static constexpr int column_block_bytes = Rows * 128;
  static constexpr int half_bytes = column_blocks * column_block_bytes;
  static constexpr int bytes = 2 * half_bytes;
};

__device__ inline uint32_t pack(float low, float high) {
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}
__device__ inline float low_of(uint32_t both) { return __uint_as_float(both << 16); }
__device__ inline float high_of(uint32_t both) { return __uint_as_float(both & 0xffff0000u); }
/// x = hi + lo to 2^-17 of x, two values a register.
__device__ inline void split(float x0, float x1, uint32_t& hi, uint32_t& lo) {
  hi = pack(x0, x1);
  lo = pack(x0 - low_of(hi), x1 - high_of(hi));
}
__device__ inline float2 sum(uint32_t hi, uint32_t lo) {
  return make_float2(low_of(hi) + low_of(lo), high_of(hi) + high_of(lo));
}
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// d (64, N) = (keep ? d : 0) + A (64, D) B (N, D)^T, both in shared memory. Full: hi hi + hi lo + lo hi, else hi hi.
template <int D, int N, bool Full>
__device__ inline void multiply_rows(float (&d)[N / 2], uint32_t a, uint32_t b, bool keep) {
  const uint64_t a_hi = hopper::descriptor(a), b_hi = hopper::descriptor(b);
#pragma unroll
  for (int k = 0; k < D / 16; ++k) {
    const int a_at = (k / 4 * Tile<D>::column_block_bytes + k % 4 * 32) >> 4;
    const int b_at = (k / 4 * Tile<D, N>::column_block_bytes + k % 4 * 32) >> 4;
    const int a_lo = Tile<D>::half_bytes >> 4, b_lo = Tile<D, N>::half_bytes >> 4;
    hopper::Wgmma<N>::template multiply<0, 0>(d, a_hi + a_at, b_hi + b_at, keep || k > 0);
    if constexpr (Full) {
      hopper::Wgmma<N>::template multiply<0, 0>(d, a_hi + a_at, b_hi + b_at + b_lo, 1);
      hopper::Wgmma<N>::template multiply<0, 0>(d, a_hi + a_at + a_lo, b_hi + b_at, 1);
    }
  }
}

/// d (64, D) += A (64, N) B (N, D): A in registers (a product's own layout, split), B in shared memory.
template <int D, int N, bool Full>
__device__ inline void multiply_registers(float (&d)[D / 2], const uint32_t (&a_hi)[N / 4],
                                          const uint32_t (&a_lo)[N / 4], uint32_t b) {
  const uint64_t b_hi = hopper::descriptor(b, Tile<D, N>::column_block_bytes);
#pragma unroll
  for (int k = 0; k < N / 16; ++k) {
    const int at = k * 2048 >> 4, b_lo = Tile<D, N>::half_bytes >> 4;
    hopper::Wgmma<D>::template multiply<1>(d, a_hi + 4 * k, b_hi + at, 1);
    if constexpr (Full) {
      hopper::Wgmma<D>::template multiply<1>(d, a_hi + 4 * k, b_hi + at + b_lo, 1);
      hopper::Wgmma<D>::template multiply<1>(d, a_lo + 4 * k, b_hi + at, 1);
    }
  }
}

/// d (64, D) = (keep ? d : 0) + A^T B, A (64, 64), B (64, D), both in shared memory.
template <int D, bool Full>
__device__ inline void multiply_columns(float (&d)[D / 2], uint32_t a, uint32_t b, bool keep) {
  const uint64_t a_hi = hopper::descriptor(a), b_hi = hopper::descriptor(b, Tile<D>::column_block_bytes);
#pragma unroll
  for (int k = 0; k < kBlock / 16; ++k) {
    const int at = k * 2048 >> 4, a_lo = Tile<64>::half_bytes >> 4, b_lo = Tile<D>::half_bytes >> 4;
    hopper::Wgmma<D>::template multiply<1, 1>(d, a_hi + at, b_hi + at, keep || k > 0);
    if constexpr (Full) {
      hopper::Wgmma<D>::template multiply<1, 1>(d, a_hi + at, b_hi + at + b_lo, 1);
      hopper::Wgmma<D>::template multiply<1, 1>(d, a_hi + at + a_lo, b_hi + at, 1);
    }
  }
}

}  // namespace hesper::attention_cuda
