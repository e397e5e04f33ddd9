#pragma once
// {Q, K, V}_bar_dot of one direction, or Q', K', V' of the second-order form, in one sweep over the queries. A thread
// block owns 64 keys of a key/value head; its warpgroups take the tiles of queries in turn. Tiles are transposed, keys
// x queries, so that P^T, dS^T and their tangents are born in the registers that multiply the query side:
//   P = exp(K Q^T - L), w = dS = P * (V O_bar^T - Dl), X = S_dot - r, S_dot = K Q_dot^T + K_dot Q^T
//   P_dot = P * X, dP_dot = V O_bar_dot^T + V_dot O_bar^T, dS_dot = X * w + P * (dP_dot - Dl_dot)
//   K_bar_dot += dS_dot Q + w Q_dot, V_bar_dot += P_dot O_bar + P O_bar_dot, Q_bar_dot += c (dS_dot^T K + w^T K_dot)
// (Q, Q_dot come scaled by c.) Form: dS_dot = X * w - P e, K' = dS_dot Q, V' = 2 P_dot O_bar, Q' = c (dS_dot^T K +
// 2 w^T K_dot). Plain (no tangents): dS_dot = P * (V O_bar_dot^T - Dl_dot), K_bar_dot = dS_dot Q, V_bar_dot = P
// O_bar_dot, Q_bar_dot = c dS_dot^T K.
// Q_bar_dot of a tile of queries is a sum over key tiles: they add to it in global memory one after another, in
// ascending order, each waiting for a counter of the tile. Blocks take their work in that order, so that they wait only
// for blocks that run already. 12 tile products a direction (form 8, plain 5).
#include "ops/cuda/attention_tiles.cuh"

namespace hesper::attention_cuda {

enum class Sweep { adjoint_tangent, form, plain };

struct AdjointArguments {
  Plane q, k, v, o_bar, q_dot, k_dot, v_dot, o_bar_dot;
  const float *L = nullptr, *Dl = nullptr;      // (H, blocks*64); L times log2(e), +inf beyond T
  const float *r = nullptr, *Dl_dot = nullptr;  // (K, H, blocks*64); form: e for Dl_dot
  float *q_out = nullptr, *k_out = nullptr,
        *v_out = nullptr;  // (K, T, H*D), (K, T, G*D), (K, T, G*D); null: not wanted
  int* turn = nullptr;     // (K, H, blocks): key tiles that have added to Q_bar_dot
  int* ticket = nullptr;   // the next work item
  float scale = 1;
  int tokens = 0, blocks = 0, heads = 0, group = 0, width = 0, directions = 0;
};

template <int D>
struct AdjointShape {
  static constexpr int warpgroups = D == 64 ? 2 : 1;
  static constexpr int queries = D == 64 ? 64 : 32;  // of a step
  static constexpr int threads = 128 * (warpgroups + 1);
  static constexpr int resident = Tile<D>::bytes;       // of one of K, K_dot, V, V_dot
  static constexpr int slot = Tile<D, queries>::bytes;  // of one of Q, Q_dot, O_bar, O_bar_dot
  static constexpr int turned = Tile<64>::bytes;        // dS_dot, w of 64 queries
  static constexpr int turned_tiles = D == 64 ? 1 : 2;  // D = 64: dS_dot, then w in its place
  static constexpr int shared_bytes =
      4 * resident + warpgroups * (4 * slot + turned_tiles * turned + 4 * queries * 4 + 64) + 16;
  static int key_tiles(int blocks) { return blocks; }  // thread blocks for a key/value head and direction
};

template <int D, bool Full, Sweep kSweep>
__global__ void __launch_bounds__(AdjointShape<D>::threads, 1)
    adjoint_kernel(const __grid_constant__ AdjointArguments a) {
  using namespace hopper;
  using Cut = AdjointShape<D>;
  constexpr bool kTangents = kSweep != Sweep::plain, kForm = kSweep == Sweep::form;
  constexpr int W = Cut::warpgroups, N = Cut::queries, kSteps = kBlock / N;
  constexpr bool kOneStep = kSteps == 1;
  // Registers: 3 warpgroups start with 168 a thread and share what they have.
  constexpr int kCopying = kSweep == Sweep::adjoint_tangent ? 24 : 40, kComputing = (504 - kCopying) / 2;
  enum { kQ, kODot, kQDot, kO };  // slots: Q, O_bar_dot, Q_dot, O_bar with L, Dl_dot, r, Dl
  extern __shared__ __align__(1024) char shared[];
  const uint32_t base = shared_address(shared);
  const int role = __shfl_sync(~0u, threadIdx.x / 128, 0);
  // Of warpgroup `owner`: 4 slots, tiles of dS_dot and w, 4 rows of values, barriers.
  const int producer = threadIdx.x / 32 - 4 * W, owner = role < W ? role : min(producer, W - 1);
  const uint32_t slots = base + 4 * Cut::resident + owner * 4 * Cut::slot;
  const uint32_t all_turned = base + 4 * Cut::resident + W * 4 * Cut::slot;
  const uint32_t all_rows = all_turned + W * Cut::turned_tiles * Cut::turned, barriers = all_rows + W * 4 * N * 4;
  const uint32_t rows = all_rows + owner * 4 * N * 4;
  const auto full = [&](int i) { return barriers + 64 * owner + 8 * i; };
  const auto empty = [&](int i) { return barriers + 64 * owner + 32 + 8 * i; };
  const uint32_t ready = barriers + 64 * W;  // the resident tiles
  int& work = *reinterpret_cast<int*>(shared + (ready + 8 - base));

  if (threadIdx.x == 0) {
    work = atomicAdd(a.ticket, 1);
    for (int i = 0; i < 8 * W; ++i) barrier_init(barriers + 8 * i, i % 8 < 4 ? 1 : 4);
    barrier_init(ready, 1);
    barrier_init_fence();
  }
  __syncthreads();
  // Work in order: sets of heads whose tangents fit the L2 cache, in each the key tiles, ascending, of all its heads.
  const int kv_heads = a.heads / a.group, pairs = kv_heads * a.directions, most = max(1, 12 / a.group);
  const int set = work / (most * a.blocks), members = min(most, pairs - set * most),
            within = work - set * most * a.blocks;
  const int block = within / members, pair = set * most + within % members;  // block: of 64 keys
  const int direction = pair / kv_heads, kv_head = pair % kv_heads;
  // Tiles of queries that see it, of all heads of the group.
  const int seen = a.blocks - block, items = a.group * seen;

  if (role == W) {
    if constexpr (W == 2) give_registers<kCopying>();
    if (threadIdx.x == 128 * W) {
      const int64_t at = int64_t(block) * Cut::resident;
      const auto load = [&](int i, const char* head) {
        bulk_copy(base + i * Cut::resident, head + at, Cut::resident, ready);
      };
      barrier_expect(ready, (kTangents ? kForm ? 3 : 4 : 2) * Cut::resident);
      load(0, a.k.head(0, kv_head)), load(1, a.v.head(0, kv_head));
      if constexpr (kTangents) load(2, a.k_dot.head(direction, kv_head));
      if constexpr (kSweep == Sweep::adjoint_tangent) load(3, a.v_dot.head(direction, kv_head));
    }
    if (producer < W && threadIdx.x % 32 == 0) {
      int step = 0;
      for (int item = owner; item < items; item += W) {
        const int h = kv_head * a.group + item / seen, m = block + item % seen;
        const int64_t shared_row = (int64_t(h) * a.blocks + m) * kBlock;
        const int64_t own_row = shared_row + int64_t(direction) * a.heads * a.blocks * kBlock;
        for (int part = 0; part < kSteps; ++part, ++step) {
          const auto push = [&](int i, const char* head, const float* values) {
            constexpr int kPiece = Tile<D, N>::column_block_bytes;
            if (step > 0) barrier_wait(empty(i), (step - 1) & 1);
            barrier_expect(full(i), (head != nullptr ? Cut::slot : 0) + N * 4);
            bulk_copy(rows + i * N * 4, values + part * N, N * 4, full(i));
            if (head == nullptr) return;
            const char* const tile = head + int64_t(m) * Tile<D>::bytes + part * kPiece;
            if constexpr (kOneStep) {
              bulk_copy(slots + i * Cut::slot, tile, Cut::slot, full(i));
            } else {
              for (int x = 0; x < Cut::slot / kPiece; ++x)
                bulk_copy(slots + i * Cut::slot + x * kPiece, tile + x * Tile<D>::column_block_bytes, kPiece, full(i));
            }
          };
          push(kQ, a.q.head(0, h), a.L + shared_row);
          if constexpr (kTangents) {
            push(kO, a.o_bar.head(0, h), a.Dl + shared_row);
            push(kQDot, a.q_dot.head(direction, h), a.r + own_row);
          }
          push(kODot, kForm ? nullptr : a.o_bar_dot.head(direction, h), a.Dl_dot + own_row);  // the form reads e alone
        }
      }
    }
    return;
  }

  if constexpr (W == 2) take_registers<kComputing>();
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const uint32_t k = base, v = k + Cut::resident, k_dot = v + Cut::resident, v_dot = k_dot + Cut::resident;
  const uint32_t q = slots + kQ * Cut::slot, o_bar = slots + kO * Cut::slot, q_dot = slots + kQDot * Cut::slot,
                 o_bar_dot = slots + kODot * Cut::slot;
  const uint32_t turned = all_turned + role * Cut::turned_tiles * Cut::turned,
                 turned_w = turned + (Cut::turned_tiles - 1) * Cut::turned;
  const float* const row_values = reinterpret_cast<const float*>(shared + (rows - base));
  const auto release = [&](int i) {
    __syncwarp();
    if (lane == 0) barrier_arrive(empty(i));
  };
  barrier_wait(ready, 0);
  float k_bar[D / 2], v_bar[D / 2];
#pragma unroll
  for (int j = 0; j < D / 2; ++j) k_bar[j] = v_bar[j] = 0;

  // Writes a product's tile, keys x N queries from `part`, where multiply_columns reads it.
  const auto store_turned = [&](uint32_t tile, const uint32_t(&hi)[N / 4], const uint32_t(&lo)[N / 4], int part) {
    char* const to = shared + (tile - base);
#pragma unroll
    for (int j = 0; j < N / 4; ++j) {
      const int key = 16 * warp + g + 8 * (j % 2), chunk = part * (N / 8) + j / 2;
      const int at = key * 128 + ((chunk ^ (key & 7)) << 4) + 4 * t;
      *reinterpret_cast<uint32_t*>(to + at) = hi[j];
      if constexpr (Full) *reinterpret_cast<uint32_t*>(to + Tile<64>::half_bytes + at) = lo[j];
    }
    fence_async_proxy();
  };
  const auto values = [&](int i, int j) {  // of queries 8j + 2t, 8j + 2t + 1
    return *reinterpret_cast<const float2*>(row_values + i * N + 8 * j + 2 * t);
  };
  // The tile of queries just added to: its counter moves on once the next products are under way.
  int* due = nullptr;
  const auto pass_turn = [&] {
    if (due == nullptr) return;
    __threadfence();
    warpgroup_sync(1 + role);
    if (threadIdx.x % 128 == 0) store_release(due, block + 1);
    due = nullptr;
  };

  int step = 0;
  for (int item = role; item < items; item += W) {
    const int h = kv_head * a.group + item / seen, m = block + item % seen;
#pragma unroll 1
    for (int part = 0; part < kSteps; ++part, ++step) {
      const int parity = step & 1;
      float s[N / 2], s_dot[N / 2], dp[N / 2], dp_dot[N / 2];
      uint32_t p_hi[N / 4], p_lo[N / 4], w_hi[N / 4], w_lo[N / 4];
      uint32_t p_dot_hi[N / 4], p_dot_lo[N / 4], ds_dot_hi[N / 4], ds_dot_lo[N / 4];
      barrier_wait(full(kQ), parity);
      wgmma_fence();
      multiply_rows<D, N, true>(s, k, q, false);
      if constexpr (kTangents) {
        barrier_wait(full(kO), parity);
        wgmma_fence();
        multiply_rows<D, N, Full>(dp, v, o_bar, false);
        wgmma_commit();
        barrier_wait(full(kQDot), parity);
        wgmma_fence();
        multiply_rows<D, N, true>(s_dot, k, q_dot, false);
        multiply_rows<D, N, true>(s_dot, k_dot, q, true);
      } else {
        wgmma_commit();
      }
      if constexpr (kForm) {
        wgmma_commit();
        barrier_wait(full(kODot), parity);
      } else {
        barrier_wait(full(kODot), parity);
        wgmma_fence();
        multiply_rows<D, N, Full>(dp_dot, v, o_bar_dot, false);
        if constexpr (kTangents) multiply_rows<D, N, Full>(dp_dot, v_dot, o_bar, true);
        wgmma_commit();
      }
      pass_turn();
      wgmma_wait<1>();
      hold(s);
      if constexpr (kTangents) hold(dp);
#pragma unroll
      for (int j = 0; j < N / 4; ++j) {
        const float2 L = values(kQ, j / 2);
        float p[2] = {exp2_fast(fmaf(s[2 * j], 1.4426950408889634f, -L.x)),
                      exp2_fast(fmaf(s[2 * j + 1], 1.4426950408889634f, -L.y))};
        if (m == block) {
          const int key = 16 * warp + g + 8 * (j % 2), query = part * N + 8 * (j / 2) + 2 * t;
          if (key > query) p[0] = 0;
          if (key > query + 1) p[1] = 0;
        }
        split(p[0], p[1], p_hi[j], p_lo[j]);
        if constexpr (kTangents) {
          const float2 Dl = values(kO, j / 2);
          split(p[0] * (dp[2 * j] - Dl.x), p[1] * (dp[2 * j + 1] - Dl.y), w_hi[j], w_lo[j]);
        }
      }
      wgmma_wait<0>();
      if constexpr (kTangents) hold(s_dot);
      if constexpr (!kForm) hold(dp_dot);
#pragma unroll
      for (int j = 0; j < N / 4; ++j) {
        const float2 p = sum(p_hi[j], p_lo[j]), Dl_dot = values(kODot, j / 2);
        float y0, y1;
        if constexpr (kForm)
          y0 = -p.x * Dl_dot.x, y1 = -p.y * Dl_dot.y;
        else
          y0 = p.x * (dp_dot[2 * j] - Dl_dot.x), y1 = p.y * (dp_dot[2 * j + 1] - Dl_dot.y);
        if constexpr (kTangents) {
          const float2 w = sum(w_hi[j], w_lo[j]), r = values(kQDot, j / 2);
          const float x0 = s_dot[2 * j] - r.x, x1 = s_dot[2 * j + 1] - r.y;
          y0 = fmaf(x0, w.x, y0), y1 = fmaf(x1, w.y, y1);
          split(p.x * x0, p.y * x1, p_dot_hi[j], p_dot_lo[j]);
        }
        split(y0, y1, ds_dot_hi[j], ds_dot_lo[j]);
      }
      store_turned(turned, ds_dot_hi, ds_dot_lo, part);
      if constexpr (kForm) {  // Q' takes 2 w: exact in bf16
#pragma unroll
        for (int j = 0; j < N / 4; ++j) {
          w_hi[j] = pack(2 * low_of(w_hi[j]), 2 * high_of(w_hi[j]));
          w_lo[j] = pack(2 * low_of(w_lo[j]), 2 * high_of(w_lo[j]));
        }
      }
      if constexpr (kTangents && Cut::turned_tiles == 2) store_turned(turned_w, w_hi, w_lo, part);

      // V_bar_dot, then K_bar_dot
      if constexpr (kTangents) hold(p_dot_hi), hold(p_dot_lo), hold(w_hi), hold(w_lo);
      hold(p_hi), hold(p_lo), hold(ds_dot_hi), hold(ds_dot_lo);
      wgmma_fence();
      if constexpr (kTangents) multiply_registers<D, N, Full>(v_bar, p_dot_hi, p_dot_lo, o_bar);
      if constexpr (!kForm) multiply_registers<D, N, Full>(v_bar, p_hi, p_lo, o_bar_dot);
      wgmma_commit();
      wgmma_fence();
      multiply_registers<D, N, Full>(k_bar, ds_dot_hi, ds_dot_lo, q);
      if constexpr (kSweep == Sweep::adjoint_tangent) multiply_registers<D, N, Full>(k_bar, w_hi, w_lo, q_dot);
      wgmma_commit();
      const bool last = kOneStep || part == kSteps - 1;
      int* const turn = a.turn + (int64_t(direction) * a.heads + h) * a.blocks + m;
      if (last && block > 0 && a.q_out != nullptr && threadIdx.x % 128 == 0)
        while (load_acquire(turn) != block) {
        }
      wgmma_wait<1>();
      hold(v_bar), hold(p_hi), hold(p_lo);
      if constexpr (kTangents) {
        hold(p_dot_hi), hold(p_dot_lo);
        release(kO);
      }
      release(kODot);
      if constexpr (!kOneStep) {
        wgmma_wait<0>();
        hold(k_bar), hold(ds_dot_hi), hold(ds_dot_lo);
        if constexpr (kTangents) {
          hold(w_hi), hold(w_lo);
          release(kQDot);
        }
        release(kQ);
        if (!last) continue;
      }

      // Q_bar_dot of 64 queries
      float q_bar[D / 2];
      float2 before[2][kOneStep ? D / 8 : 1];
      const int64_t token = m * kBlock + 16 * warp + g;
      float* const out = a.q_out + ((int64_t(direction) * a.tokens + token) * a.heads + h) * a.width + 2 * t;
      const int64_t next_half = int64_t(8) * a.heads * a.width;
      const bool add = block > 0 && a.q_out != nullptr;
      const auto old = [&](int half, int j) {
        return add && token + 8 * half < a.tokens && 8 * j + 2 * t < a.width
                   ? __ldcg(reinterpret_cast<const float2*>(out + half * next_half + 8 * j))
                   : float2{};
      };
      warpgroup_sync(1 + role);
      wgmma_fence();
      multiply_columns<D, Full>(q_bar, turned, k, false);
      if constexpr (kTangents && Cut::turned_tiles == 2) multiply_columns<D, Full>(q_bar, turned_w, k_dot, true);
      wgmma_commit();
      if constexpr (kOneStep) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
          for (int j = 0; j < D / 8; ++j) before[half][j] = old(half, j);
        wgmma_wait<1>();
        hold(k_bar), hold(ds_dot_hi), hold(ds_dot_lo);
        if constexpr (kTangents) {
          hold(w_hi), hold(w_lo);
          release(kQDot);
        }
        release(kQ);
        if constexpr (kTangents) {
          wgmma_wait<0>();
          warpgroup_sync(1 + role);
          store_turned(turned_w, w_hi, w_lo, part);
          warpgroup_sync(1 + role);
          hold(q_bar);
          wgmma_fence();
          multiply_columns<D, Full>(q_bar, turned_w, k_dot, true);
          wgmma_commit();
        }
      }
      wgmma_wait<0>();
      hold(q_bar);
      if (a.q_out == nullptr) {
        warpgroup_sync(1 + role);  // the turned tiles are read
        continue;
      }
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int j = 0; j < D / 8; ++j) {
          const int at = 4 * j + 2 * half;
          const float2 x = kOneStep ? before[half][kOneStep ? j : 0] : old(half, j);
          if (token + 8 * half < a.tokens && 8 * j + 2 * t < a.width)
            __stcg(reinterpret_cast<float2*>(out + half * next_half + 8 * j),
                   float2{fmaf(a.scale, q_bar[at], x.x), fmaf(a.scale, q_bar[at + 1], x.y)});
        }
      due = turn;
    }
  }
  pass_turn();

  // K_bar_dot and V_bar_dot: the warpgroups' sums, the second's through its slots.
  if constexpr (W == 2) {
    float* const sums = reinterpret_cast<float*>(shared + 4 * Cut::resident + 4 * Cut::slot) + threadIdx.x % 128;
    if (role == 1) {
#pragma unroll
      for (int j = 0; j < D / 2; ++j) sums[128 * j] = k_bar[j], sums[128 * (j + D / 2)] = v_bar[j];
    }
    asm volatile("bar.sync 3, 256;" ::: "memory");
    if (role == 1) return;
#pragma unroll
    for (int j = 0; j < D / 2; ++j) k_bar[j] += sums[128 * j], v_bar[j] += sums[128 * (j + D / 2)];
  }
  constexpr float factor = kForm ? 2 : 1;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int token = block * kBlock + 16 * warp + g + 8 * half;
    if (token >= a.tokens) continue;
    const int64_t out = ((int64_t(direction) * a.tokens + token) * kv_heads + kv_head) * a.width + 2 * t;
#pragma unroll
    for (int j = 0; j < D / 8; ++j) {
      const int at = 4 * j + 2 * half;
      if (8 * j + 2 * t >= a.width) continue;
      if (a.k_out != nullptr) *reinterpret_cast<float2*>(a.k_out + out + 8 * j) = {k_bar[at], k_bar[at + 1]};
      if (a.v_out != nullptr)
        *reinterpret_cast<float2*>(a.v_out + out + 8 * j) = {factor * v_bar[at], factor * v_bar[at + 1]};
    }
  }
}

}  // namespace hesper::attention_cuda
