#pragma once
// {Q, K, V}_bar_dot of one direction, or Q', K', V' of the second-order form, in one sweep over the queries. A thread
// block owns the keys of one or two tiles of 64 (one a warpgroup) of a key/value head; tiles are transposed, keys x
// queries, so that P^T, dS^T and their tangents are born in the registers that multiply the query side:
//   P = exp(K Q^T - L), w = dS = P * (V O_bar^T - Dl), X = S_dot - r, S_dot = K Q_dot^T + K_dot Q^T
//   P_dot = P * X, dP_dot = V O_bar_dot^T + V_dot O_bar^T, dS_dot = X * w + P * (dP_dot - Dl_dot)
//   K_bar_dot += dS_dot Q + w Q_dot, V_bar_dot += P_dot O_bar + P O_bar_dot, Q_bar_dot += c (dS_dot^T K + w^T K_dot)
// (Q, Q_dot come scaled by c.) Form: dS_dot = X * w - P e, K' = dS_dot Q, V' = 2 P_dot O_bar, Q' = c (dS_dot^T K +
// 2 w^T K_dot). Plain (no tangents): dS_dot = P * (V O_bar_dot^T - Dl_dot), K_bar_dot = dS_dot Q, V_bar_dot = P
// O_bar_dot, Q_bar_dot = c dS_dot^T K.
// Q_bar_dot of a tile of queries is a sum over key tiles: they add to it in global memory one after another, in
// ascending order, each waiting for a counter of the tile. Blocks take their work in that order, so that they wait only
// for blocks that run already. 12 tile products a direction (form 8 + 2 shared, plain 5).
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
  static constexpr int warpgroups = D == 64 ? 2 : 1;  // each 64 keys
  static constexpr int queries = D == 64 ? 64 : 32;   // of a step
  static constexpr int threads = 128 * (warpgroups + 1);
  static constexpr int resident = Tile<D>::bytes;       // of one of K, K_dot, V, V_dot of a warpgroup
  static constexpr int slot = Tile<D, queries>::bytes;  // of one of Q, Q_dot, O_bar, O_bar_dot
  static constexpr int turned = Tile<64>::bytes;        // dS_dot, w of 64 queries
  static constexpr int turned_tiles = D == 64 ? 1 : 2;  // D = 64: dS_dot and w in turn
  static constexpr int shared_bytes =
      1024 + 4 * warpgroups * resident + 4 * slot + warpgroups * turned_tiles * turned + 4 * queries * 4 + 128;
};

template <int D, bool Full, Sweep kSweep>
__global__ void __launch_bounds__(AdjointShape<D>::threads, 1)
    adjoint_kernel(const __grid_constant__ AdjointArguments a) {
  using namespace hopper;
  using Cut = AdjointShape<D>;
  constexpr bool kTangents = kSweep != Sweep::plain, kForm = kSweep == Sweep::form;
  constexpr int W = Cut::warpgroups, N = Cut::queries, kSteps = kBlock / N;
  enum { kQ, kODot, kQDot, kO };  // slots: Q, O_bar_dot, Q_dot, O_bar with L, Dl_dot, r, Dl
  extern __shared__ char raw[];
  const uint32_t base = (shared_address(raw) + 1023) & ~1023u;
  const uint32_t slots = base + 4 * W * Cut::resident, turned = slots + 4 * Cut::slot;
  const uint32_t rows = turned + W * Cut::turned_tiles * Cut::turned, barriers = rows + 4 * N * 4;
  char* const generic = raw + (base - shared_address(raw));
  const float* const row_values = reinterpret_cast<const float*>(generic + (rows - base));
  const auto full = [&](int i) { return barriers + 8 * i; };
  const auto empty = [&](int i) { return barriers + 32 + 8 * i; };
  const uint32_t ready = barriers + 64;

  __shared__ int work;
  if (threadIdx.x == 0) {
    work = atomicAdd(a.ticket, 1);
    for (int i = 0; i < 4; ++i) barrier_init(full(i), 1), barrier_init(empty(i), 4 * W);
    barrier_init(ready, 1);
    barrier_init_fence();
  }
  __syncthreads();
  const int kv_heads = a.heads / a.group;
  const int kv_head = work % kv_heads, direction = work / kv_heads % a.directions;
  const int first = work / (kv_heads * a.directions) * W;  // key tile of the first warpgroup

  const int role = __shfl_sync(~0u, threadIdx.x / 128, 0);
  if (role == W) {
    if constexpr (W == 2) give_registers<24>();
    if (threadIdx.x == 128 * W) {
      constexpr int kResident = Cut::resident;
      const int count = min(W, a.blocks - first);
      barrier_expect(ready, (kTangents ? (kForm ? 3 : 4) : 2) * count * kResident);
      for (int w = 0; w < count; ++w) {
        const int64_t at = int64_t(first + w) * kResident;
        const uint32_t to = base + 4 * w * kResident;
        bulk_copy(to, a.k.head(0, kv_head) + at, kResident, ready);
        bulk_copy(to + kResident, a.v.head(0, kv_head) + at, kResident, ready);
        if constexpr (kTangents) bulk_copy(to + 2 * kResident, a.k_dot.head(direction, kv_head) + at, kResident, ready);
        if constexpr (kSweep == Sweep::adjoint_tangent)
          bulk_copy(to + 3 * kResident, a.v_dot.head(direction, kv_head) + at, kResident, ready);
      }
      int step = 0;
      for (int h = kv_head * a.group; h < (kv_head + 1) * a.group; ++h)
        for (int m = first; m < a.blocks; ++m)
          for (int part = 0; part < kSteps; ++part, ++step) {
            const auto push = [&](int i, const char* plane, const float* values) {
              if (step > 0) barrier_wait(empty(i), (step - 1) & 1);
              barrier_expect(full(i), Cut::slot + N * 4);
              constexpr int kPiece = Tile<D, N>::column_block_bytes, kPieces = Cut::slot / kPiece;
              if constexpr (kSteps == 1) {
                bulk_copy(slots + i * Cut::slot, plane + int64_t(m) * Cut::slot, Cut::slot, full(i));
              } else {
                for (int x = 0; x < kPieces; ++x)
                  bulk_copy(slots + i * Cut::slot + x * kPiece,
                            plane + int64_t(m) * Tile<D>::bytes + x * Tile<D>::column_block_bytes + part * kPiece,
                            kPiece, full(i));
              }
              bulk_copy(rows + i * N * 4, values + m * kBlock + part * N, N * 4, full(i));
            };
            const int64_t shared_row = int64_t(h) * a.blocks * kBlock;
            const int64_t own_row = (int64_t(direction) * a.heads + h) * a.blocks * kBlock;
            push(kQ, a.q.head(0, h), a.L + shared_row);
            if constexpr (kTangents) {
              push(kO, a.o_bar.head(0, h), a.Dl + shared_row);
              push(kQDot, a.q_dot.head(direction, h), a.r + own_row);
            }
            // The form reads e here and no tile.
            if constexpr (kForm) {
              if (step > 0) barrier_wait(empty(kODot), (step - 1) & 1);
              barrier_expect(full(kODot), N * 4);
              bulk_copy(rows + kODot * N * 4, a.Dl_dot + own_row + m * kBlock + part * N, N * 4, full(kODot));
            } else {
              push(kODot, a.o_bar_dot.head(direction, h), a.Dl_dot + own_row);
            }
          }
    }
    return;
  }

  if constexpr (W == 2) take_registers<240>();
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int block = first + role;  // of 64 keys
  const bool here = block < a.blocks;
  const uint32_t k = base + 4 * role * Cut::resident, v = k + Cut::resident, k_dot = v + Cut::resident,
                 v_dot = k_dot + Cut::resident;
  const uint32_t q = slots + kQ * Cut::slot, o_bar = slots + kO * Cut::slot, q_dot = slots + kQDot * Cut::slot,
                 o_bar_dot = slots + kODot * Cut::slot;
  const uint32_t mine = turned + role * Cut::turned_tiles * Cut::turned,
                 mine_w = mine + (Cut::turned_tiles - 1) * Cut::turned;
  const auto release = [&](int i) {
    __syncwarp();
    if (lane == 0) barrier_arrive(empty(i));
  };
  if (here) barrier_wait(ready, 0);
  float k_bar[D / 2], v_bar[D / 2];
#pragma unroll
  for (int j = 0; j < D / 2; ++j) k_bar[j] = v_bar[j] = 0;

  // Q' takes 2 w: exact in bf16.
  const auto twice = [&](uint32_t(&x)[N / 4]) {
#pragma unroll
    for (int j = 0; j < N / 4; ++j) x[j] = pack(2 * low_of(x[j]), 2 * high_of(x[j]));
  };
  // Writes a product's tile, keys x N queries from `part`, where multiply_columns reads it.
  const auto store_turned = [&](uint32_t tile, const uint32_t(&hi)[N / 4], const uint32_t(&lo)[N / 4], int part) {
    char* const to = generic + (tile - base);
#pragma unroll
    for (int j = 0; j < N / 4; ++j) {
      const int key = 16 * warp + g + 8 * (j % 2), chunk = part * (N / 8) + j / 2;
      const int at = key * 128 + ((chunk ^ (key & 7)) << 4) + 4 * t;
      *reinterpret_cast<uint32_t*>(to + at) = hi[j];
      if constexpr (Full) *reinterpret_cast<uint32_t*>(to + Tile<64>::half_bytes + at) = lo[j];
    }
  };
  const auto values = [&](int i, int j) {  // of queries 8j + 2t, 8j + 2t + 1
    return *reinterpret_cast<const float2*>(row_values + i * N + 8 * j + 2 * t);
  };

  int step = 0;
  for (int h = kv_head * a.group; h < (kv_head + 1) * a.group; ++h)
    for (int m = first; m < a.blocks; ++m)
#pragma unroll 1
      for (int part = 0; part < kSteps; ++part, ++step) {
        const int parity = step & 1;
        if (!here || m < block) {
          for (int i = 0; i < 4; ++i)
            if (kTangents || i == kQ || i == kODot) barrier_wait(full(i), parity), release(i);
          continue;
        }
        float s[N / 2], s_dot[N / 2], dp[N / 2], dp_dot[N / 2];
        uint32_t p_hi[N / 4], p_lo[N / 4], w_hi[N / 4], w_lo[N / 4];
        uint32_t p_dot_hi[N / 4], p_dot_lo[N / 4], ds_dot_hi[N / 4], ds_dot_lo[N / 4];
        barrier_wait(full(kQ), parity);
        wgmma_fence();
        multiply_rows<D, N, true>(s, k, q, false);
        wgmma_commit();
        if constexpr (kTangents) {
          barrier_wait(full(kO), parity);
          wgmma_fence();
          multiply_rows<D, N, Full>(dp, v, o_bar, false);
          wgmma_commit();
          barrier_wait(full(kQDot), parity);
          wgmma_fence();
          multiply_rows<D, N, true>(s_dot, k, q_dot, false);
          multiply_rows<D, N, true>(s_dot, k_dot, q, true);
        }
        barrier_wait(full(kODot), parity);
        if constexpr (!kForm) {
          wgmma_fence();
          multiply_rows<D, N, Full>(dp_dot, v, o_bar_dot, false);
          if constexpr (kTangents) multiply_rows<D, N, Full>(dp_dot, v_dot, o_bar, true);
        }
        wgmma_commit();
        if constexpr (kTangents)
          wgmma_wait<2>();
        else
          wgmma_wait<1>();
        hold(s);
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
        }
        if constexpr (kTangents) {
          wgmma_wait<1>();
          hold(dp);
#pragma unroll
          for (int j = 0; j < N / 4; ++j) {
            const float2 p = sum(p_hi[j], p_lo[j]), Dl = values(kO, j / 2);
            split(p.x * (dp[2 * j] - Dl.x), p.y * (dp[2 * j + 1] - Dl.y), w_hi[j], w_lo[j]);
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
        store_turned(mine, ds_dot_hi, ds_dot_lo, part);
        if constexpr (kForm) twice(w_hi), twice(w_lo);
        if constexpr (kTangents && Cut::turned_tiles == 2) store_turned(mine_w, w_hi, w_lo, part);
        fence_async_proxy();

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
        wgmma_wait<1>();
        hold(v_bar), hold(p_hi), hold(p_lo);
        if constexpr (kTangents) {
          hold(p_dot_hi), hold(p_dot_lo);
          release(kO);
        }
        release(kODot);

        // Q_bar_dot of 64 queries
        const bool last = part == kSteps - 1;
        float q_bar[D / 2];
        if (kSteps == 1 || last) {
          warpgroup_sync(1 + role);
          wgmma_fence();
          multiply_columns<D, Full>(q_bar, mine, k, false);
          if constexpr (kTangents && Cut::turned_tiles == 2) multiply_columns<D, Full>(q_bar, mine_w, k_dot, true);
          wgmma_commit();
        }
        if (kSteps == 1 || last)
          wgmma_wait<1>();
        else
          wgmma_wait<0>();
        hold(k_bar), hold(ds_dot_hi), hold(ds_dot_lo);
        if constexpr (kTangents) hold(w_hi), hold(w_lo);
        release(kQ);
        if constexpr (kTangents) release(kQDot);
        if (kSteps > 1 && !last) continue;
        if constexpr (kTangents && Cut::turned_tiles == 1) {
          wgmma_wait<0>();
          warpgroup_sync(1 + role);
          store_turned(mine_w, w_hi, w_lo, part);
          fence_async_proxy();
          warpgroup_sync(1 + role);
          hold(q_bar);
          wgmma_fence();
          multiply_columns<D, Full>(q_bar, mine_w, k_dot, true);
          wgmma_commit();
        }
        wgmma_wait<0>();
        hold(q_bar);
        if (a.q_out == nullptr) {
          warpgroup_sync(1 + role);
          continue;
        }
        int* const turn = a.turn + (int64_t(direction) * a.heads + h) * a.blocks + m;
        if (block > 0) {
          if (threadIdx.x % 128 == 0)
            while (load_acquire(turn) != block) {
            }
          warpgroup_sync(1 + role);
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int token = m * kBlock + 16 * warp + g + 8 * half;
          if (token >= a.tokens) continue;
          float* const out = a.q_out + ((int64_t(direction) * a.tokens + token) * a.heads + h) * a.width + 2 * t;
          float2 before[D / 8];
#pragma unroll
          for (int j = 0; j < D / 8; ++j)
            before[j] =
                block > 0 && 8 * j + 2 * t < a.width ? __ldcg(reinterpret_cast<float2*>(out + 8 * j)) : float2{};
#pragma unroll
          for (int j = 0; j < D / 8; ++j) {
            const int at = 4 * j + 2 * half;
            const float2 after{fmaf(a.scale, q_bar[at], before[j].x), fmaf(a.scale, q_bar[at + 1], before[j].y)};
            if (8 * j + 2 * t < a.width) __stcg(reinterpret_cast<float2*>(out + 8 * j), after);
          }
        }
        __threadfence();
        warpgroup_sync(1 + role);
        if (threadIdx.x % 128 == 0) store_release(turn, block + 1);
      }
  if (!here) return;

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int token = block * kBlock + 16 * warp + g + 8 * half;
    if (token >= a.tokens) continue;
    const int64_t out = ((int64_t(direction) * a.tokens + token) * kv_heads + kv_head) * a.width + 2 * t;
    constexpr float factor = kForm ? 2 : 1;
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
