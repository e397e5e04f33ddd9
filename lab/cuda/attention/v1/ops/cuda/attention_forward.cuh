#pragma once
// O_dot, r (and, for the Gram pass, e) of 128 rows of one head and one or two directions: one sweep over the keys.
//   S_dot = Q_dot K^T + Q K_dot^T (Q and Q_dot come scaled by c), X = P * S_dot,
//   r = rowsum(X), A = X V, O_dot = A - r O + P V_dot, e = rowsum(dS * S_dot) = rowsum(O_bar * (A - r O))
// Two warpgroups hold 64 rows each; a third streams tiles of K, K_dot, V, V_dot through a ring. P of a tile is made
// once for all directions of the block. 4 tile products a direction and one more for S.
#include "ops/cuda/attention_tiles.cuh"

namespace hesper::attention_cuda {

struct ForwardArguments {
  Plane q, k, v, q_dot, k_dot, v_dot;
  const float* L = nullptr;                    // (H, blocks*64), times log2(e), +inf beyond T
  const float *o = nullptr, *o_bar = nullptr;  // (T, H*D)
  float *o_dot = nullptr, *r = nullptr;        // (K, T, H*D), (K, T, H)
  float *r_row = nullptr, *e_row = nullptr;    // (K, H, blocks*64), for the Gram pass
  int tokens = 0, blocks = 0, heads = 0, group = 0, width = 0, directions = 0;
};

template <int D, bool Form>
struct ForwardShape {
  static constexpr int directions = D == 64 && !Form ? 2 : 1;  // of a thread block: what the registers hold
  static constexpr int slots = D == 64 ? 8 : 3;
  static constexpr int threads = 384;
  static constexpr int resident_bytes = 2 * (1 + directions) * Tile<D>::bytes;
  static constexpr int shared_bytes = 1024 + resident_bytes + slots * Tile<D>::bytes + 256;
};

template <int D, bool Full, bool Form>
__global__ void __launch_bounds__(ForwardShape<D, Form>::threads, 1)
    forward_kernel(const __grid_constant__ ForwardArguments a) {
  using namespace hopper;
  using Cut = ForwardShape<D, Form>;
  constexpr int kDirections = Cut::directions, kSlots = Cut::slots, kBytes = Tile<D>::bytes;
  extern __shared__ char raw[];
  const uint32_t base = (shared_address(raw) + 1023) & ~1023u;
  const uint32_t ring = base + Cut::resident_bytes, barriers = ring + kSlots * kBytes;
  const auto full = [&](int slot) { return barriers + 8 * slot; };
  const auto empty = [&](int slot) { return barriers + 8 * (kSlots + slot); };
  const uint32_t ready = barriers + 16 * kSlots;  // the resident tiles
  const int head = blockIdx.x, pair = gridDim.y - 1 - blockIdx.y, first = blockIdx.z * kDirections;
  const int kv_head = head / a.group, keys = min(a.blocks, 2 * pair + 2);
  const auto direction = [&](int i) { return min(first + i, a.directions - 1); };

  if (threadIdx.x == 0) {
    for (int i = 0; i < kSlots; ++i) barrier_init(full(i), 1), barrier_init(empty(i), 8);
    barrier_init(ready, 1);
    barrier_init_fence();
  }
  __syncthreads();

  const int role = __shfl_sync(~0u, threadIdx.x / 128, 0);
  if (role == 2) {
    give_registers<24>();
    if (threadIdx.x == 256) {
      const int rows = min(2, a.blocks - 2 * pair);
      barrier_expect(ready, (1 + kDirections) * rows * kBytes);
      for (int i = 0; i <= kDirections; ++i)
        for (int w = 0; w < rows; ++w) {
          const char* from = i == 0 ? a.q.head(0, head) : a.q_dot.head(direction(i - 1), head);
          bulk_copy(base + (2 * i + w) * kBytes, from + int64_t(2 * pair + w) * kBytes, kBytes, ready);
        }
      int count = 0;
      const auto push = [&](const char* from, int n) {
        const int slot = count % kSlots;
        if (count >= kSlots) barrier_wait(empty(slot), (count / kSlots - 1) & 1);
        barrier_expect(full(slot), kBytes);
        bulk_copy(ring + slot * kBytes, from + int64_t(n) * kBytes, kBytes, full(slot));
        ++count;
      };
      for (int n = 0; n < keys; ++n)
        for (int i = 0; i < kDirections; ++i) {
          if (i == 0) push(a.k.head(0, kv_head), n);
          push(a.k_dot.head(direction(i), kv_head), n);
          if (i == 0) push(a.v.head(0, kv_head), n);
          push(a.v_dot.head(direction(i), kv_head), n);
        }
    }
    return;
  }

  take_registers<240>();
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int block = 2 * pair + role;  // of 64 rows
  const bool here = block < a.blocks;
  const auto q_tile = [&](int i) { return base + (2 * i + role) * kBytes; };
  const int row = block * kBlock + 16 * warp + g;  // and row + 8
  float L[2] = {0, 0};
  if (here) {
    L[0] = a.L[int64_t(head) * a.blocks * kBlock + row];
    L[1] = a.L[int64_t(head) * a.blocks * kBlock + row + 8];
    barrier_wait(ready, 0);
  }
  constexpr int kSums = Form ? kDirections : 1;
  float o[kDirections][D / 2], pv[kSums][D / 2], r[kDirections][2];
#pragma unroll
  for (int i = 0; i < kDirections; ++i) {
#pragma unroll
    for (int j = 0; j < D / 2; ++j) o[i][j] = 0;
    r[i][0] = r[i][1] = 0;
  }
#pragma unroll
  for (int i = 0; i < kSums; ++i)
#pragma unroll
    for (int j = 0; j < D / 2; ++j) pv[i][j] = 0;

  int count = 0;
  const auto slot_of = [&](int c) { return c % kSlots; };
  const auto wait_for = [&](int c) {
    barrier_wait(full(slot_of(c)), c / kSlots & 1);
    return ring + slot_of(c) * kBytes;
  };
  const auto release = [&](int c) {
    __syncwarp();
    if (lane == 0) barrier_arrive(empty(slot_of(c)));
  };
  // Place of a tile among those of one step: K, K_dot_0, V, V_dot_0, K_dot_1, V_dot_1.
  const auto at_k_dot = [&](int i) { return count + (i == 0 ? 1 : 2 + 2 * i); };
  const auto at_v_dot = [&](int i) { return count + 3 + 2 * i; };
  for (int n = 0; n < keys; ++n, count += 2 + 2 * kDirections) {
    if (!here || n > block) {
      for (int i = 0; i < 2 + 2 * kDirections; ++i) wait_for(count + i), release(count + i);
      continue;
    }
    float s[32], s_dot[32];
    uint32_t p_hi[16], p_lo[16], x_hi[16], x_lo[16];
    const uint32_t k = wait_for(count);
    wgmma_fence();
    multiply_rows<D, 64, true>(s, q_tile(0), k, false);
    wgmma_commit();
    const uint32_t k_dot = wait_for(at_k_dot(0));
    wgmma_fence();
    multiply_rows<D, 64, true>(s_dot, q_tile(1), k, false);
    multiply_rows<D, 64, true>(s_dot, q_tile(0), k_dot, true);
    wgmma_commit();
    wgmma_wait<1>();
    hold(s);
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      float p[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        p[i] = exp2_fast(fmaf(s[2 * j + i], 1.4426950408889634f, -L[j % 2]));
        const int column = 8 * (j / 2) + 2 * t + i, mine = 16 * warp + g + 8 * (j % 2);
        if (n == block && column > mine) p[i] = 0;
      }
      split(p[0], p[1], p_hi[j], p_lo[j]);
    }
    uint32_t v = 0;
#pragma unroll
    for (int i = 0; i < kDirections; ++i) {
      wgmma_wait<0>();
      hold(s_dot);
      if (i > 0) {
        hold(o[i - 1]);
        if constexpr (Form) hold(pv[i - 1]);
        release(at_v_dot(i - 1));
      }
      release(at_k_dot(i));
      if (i + 1 == kDirections) release(count);
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        const float2 p = sum(p_hi[j], p_lo[j]);
        const float x0 = p.x * s_dot[2 * j], x1 = p.y * s_dot[2 * j + 1];
        r[i][j % 2] += x0 + x1;
        split(x0, x1, x_hi[j], x_lo[j]);
      }
      if (i == 0) v = wait_for(count + 2);
      const uint32_t v_dot = wait_for(at_v_dot(i));
      hold(x_hi), hold(x_lo), hold(p_hi), hold(p_lo);
      wgmma_fence();
      multiply_registers<D, 64, Full>(o[i], x_hi, x_lo, v);
      if constexpr (Form)
        multiply_registers<D, 64, Full>(pv[i], p_hi, p_lo, v_dot);
      else
        multiply_registers<D, 64, Full>(o[i], p_hi, p_lo, v_dot);
      if (i + 1 < kDirections) {
        wgmma_commit();
        const uint32_t next = wait_for(at_k_dot(i + 1));
        wgmma_fence();
        multiply_rows<D, 64, true>(s_dot, q_tile(2 + i), k, false);
        multiply_rows<D, 64, true>(s_dot, q_tile(0), next, true);
      }
      wgmma_commit();
    }
    wgmma_wait<0>();
    hold(o[kDirections - 1]), hold(x_hi), hold(x_lo), hold(p_hi), hold(p_lo);
    if constexpr (Form) hold(pv[kDirections - 1]);
    release(count + 2);
    release(at_v_dot(kDirections - 1));
  }
  if (!here) return;

#pragma unroll
  for (int i = 0; i < kDirections; ++i) {
    if (first + i >= a.directions) break;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float& sum_r = r[i][half];
      sum_r += __shfl_xor_sync(~0u, sum_r, 1);
      sum_r += __shfl_xor_sync(~0u, sum_r, 2);
      const int token = row + 8 * half;
      const bool real = token < a.tokens;
      const int64_t in = (int64_t(token) * a.heads + head) * a.width,
                    out = in + int64_t(first + i) * a.tokens * a.heads * a.width;
      float e = 0;
#pragma unroll
      for (int j = 0; j < D / 8; ++j) {
        const int column = 8 * j + 2 * t, at = 4 * j + 2 * half;
        if (!real || column >= a.width) continue;
        const float2 before = *reinterpret_cast<const float2*>(a.o + in + column);
        float2 turned{o[i][at] - sum_r * before.x, o[i][at + 1] - sum_r * before.y};
        if constexpr (Form) {
          const float2 bar = *reinterpret_cast<const float2*>(a.o_bar + in + column);
          e += bar.x * turned.x + bar.y * turned.y;
          turned.x += pv[i][at], turned.y += pv[i][at + 1];
        }
        *reinterpret_cast<float2*>(a.o_dot + out + column) = turned;
      }
      if constexpr (Form) {
        e += __shfl_xor_sync(~0u, e, 1);
        e += __shfl_xor_sync(~0u, e, 2);
      }
      if (t == 0) {
        if (real) a.r[(int64_t(first + i) * a.tokens + token) * a.heads + head] = sum_r;
        if constexpr (Form) {
          const int64_t at = (int64_t(first + i) * a.heads + head) * a.blocks * kBlock + token;
          a.r_row[at] = real ? sum_r : 0;
          a.e_row[at] = real ? e : 0;
        }
      }
    }
  }
}

}  // namespace hesper::attention_cuda
