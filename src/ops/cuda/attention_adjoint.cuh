#pragma once
// {Q, K, V}_bar_dot of one direction, or Q', K', V' of the second-order form, in one sweep over tiles of 64 keys x 64
// queries. A thread block owns a run of key tiles of a key/value head; its two warpgroups take the even and the odd
// tiles of queries. Tiles are transposed, keys x queries, so that P^T, dS^T and their tangents are born in the
// registers that multiply the query side:
//   P = exp(K Q^T - L), w = dS = P * (V O_bar^T - Dl), X = S_dot - r, S_dot = K Q_dot^T + K_dot Q^T
//   P_dot = P * X, dP_dot = V O_bar_dot^T + V_dot O_bar^T, dS_dot = X * w + P * (dP_dot - Dl_dot)
//   K_bar_dot += dS_dot Q + w Q_dot, V_bar_dot += P_dot O_bar + P O_bar_dot, Q_bar_dot += c (dS_dot^T K + w^T K_dot)
// (Q, Q_dot come scaled by c.) Form: dS_dot = X * w - P e, K' = dS_dot Q, V' = 2 P_dot O_bar, Q' = c (dS_dot^T K +
// 2 w^T K_dot). Plain (no tangents): dS_dot = P * (V O_bar_dot^T - Dl_dot), K_bar_dot = dS_dot Q, V_bar_dot = P
// O_bar_dot, Q_bar_dot = c dS_dot^T K.
// Q_bar_dot of a tile of queries is a sum over key tiles: a thread block adds up its own run in global memory (each
// thread reads back what it wrote itself), gather_kernel adds the runs. 12 tile products a direction (form 8, plain 5).
#include "ops/cuda/attention_tiles.cuh"

namespace hesper::attention_cuda {

enum class Sweep { adjoint_tangent, form, plain };

struct AdjointArguments {
  Plane q, k, v, o_bar, q_dot, k_dot, v_dot, o_bar_dot;
  const float *L = nullptr, *Dl = nullptr;      // (H, blocks*64); L times log2(e), +inf beyond T
  const float *r = nullptr, *Dl_dot = nullptr;  // (K, H, blocks*64); form: e for Dl_dot
  float *k_out = nullptr, *v_out = nullptr;     // (K, T, G*D) both; null: not wanted
  float* q_sums = nullptr;                      // (runs, K, H, blocks) tiles of 64 x D as the threads hold them
  int runs = 1, run_begin[kMostRuns + 1] = {};  // key tiles [begin, next begin) a run
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
  static constexpr int turned_tiles = D == 64 ? 1 : 2;  // D = 64: w takes the slot of O_bar_dot
  static constexpr int shared_bytes =
      4 * resident + warpgroups * (4 * slot + turned_tiles * turned + 4 * queries * 4 + 64) + 16;
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
  constexpr int kCopying = 40, kComputing = (504 - kCopying) / 2;
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
  const uint32_t vacant = ready + 8;

  if (threadIdx.x == 0) {
    for (int i = 0; i < 8 * W; ++i) barrier_init(barriers + 8 * i, i % 8 < 4 ? 1 : 4);
    barrier_init(ready, 1), barrier_init(vacant, 4 * W);
    barrier_init_fence();
  }
  __syncthreads();
  const int run = blockIdx.x % a.runs, pair = blockIdx.x / a.runs, kv_heads = a.heads / a.group;
  const int direction = pair / kv_heads, kv_head = pair % kv_heads;
  const int begin = a.run_begin[run], end = a.run_begin[run + 1];
  // The first tile of queries of warpgroup `owner` that sees key tile `block`.
  const auto first_seen = [&](int block) { return W == 1 || block % 2 == owner ? block : block + 1; };

  if (role == W) {
    if constexpr (W == 2) give_registers<kCopying>();
    if (producer < W && threadIdx.x % 32 == 0) {
      int step = 0;
#pragma unroll 1
      for (int block = begin; block < end; ++block) {
        if (producer == 0) {
          const auto load = [&](int i, const char* head) {
            bulk_copy(base + i * Cut::resident, head + int64_t(block) * Cut::resident, Cut::resident, ready);
          };
          if (block > begin) barrier_wait(vacant, (block - begin - 1) & 1);
          barrier_expect(ready, (kTangents ? kForm ? 3 : 4 : 2) * Cut::resident);
          load(0, a.k.head(0, kv_head)), load(1, a.v.head(0, kv_head));
          if constexpr (kTangents) load(2, a.k_dot.head(direction, kv_head));
          if constexpr (kSweep == Sweep::adjoint_tangent) load(3, a.v_dot.head(direction, kv_head));
        }
#pragma unroll 1
        for (int h = kv_head * a.group; h < (kv_head + 1) * a.group; ++h)
#pragma unroll 1
          for (int m = first_seen(block); m < a.blocks; m += W) {
            int of = direction;
            asm volatile("" : "+r"(of));  // addresses are made anew at each step: kept, they would spill
            const int64_t shared_row = (int64_t(h) * a.blocks + m) * kBlock;
            const int64_t own_row = shared_row + int64_t(of) * a.heads * a.blocks * kBlock;
            if (m + W < a.blocks) {
              const int64_t next = int64_t(m + W) * Tile<D>::bytes;
              if constexpr (kTangents) prefetch(a.q_dot.head(of, h) + next, Tile<D>::bytes);
              if constexpr (!kForm) prefetch(a.o_bar_dot.head(of, h) + next, Tile<D>::bytes);
            }
#pragma unroll 1
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
                    bulk_copy(slots + i * Cut::slot + x * kPiece, tile + x * Tile<D>::column_block_bytes, kPiece,
                              full(i));
                }
              };
              // In the order in which the consumers give the slots back.
              if constexpr (kTangents) push(kO, a.o_bar.head(0, h), a.Dl + shared_row);
              push(kQ, a.q.head(0, h), a.L + shared_row);
              if constexpr (kTangents) push(kQDot, a.q_dot.head(of, h), a.r + own_row);
              // the form reads e alone
              push(kODot, kForm ? nullptr : a.o_bar_dot.head(of, h), a.Dl_dot + own_row);
            }
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
                 turned_w = kOneStep ? o_bar_dot : turned + Cut::turned;
  const float* const row_values = reinterpret_cast<const float*>(shared + (rows - base));
  const auto release = [&](int i) {
    __syncwarp();
    if (lane == 0) barrier_arrive(empty(i));
  };
  // Writes a product's tile, keys x N queries from `part`, where multiply_columns reads it.
  const auto store_turned = [&](uint32_t tile, const uint32_t(&hi)[N / 4], const uint32_t(&lo)[N / 4], int part) {
    int key = 16 * warp + g;  // and key + 8
    asm volatile("" : "+r"(key));
    char* const to = shared + (tile - base) + key * 128 + 4 * t;
#pragma unroll
    for (int j = 0; j < N / 4; ++j) {
      const int at = (((part * (N / 8) + j / 2) ^ (key & 7)) << 4) + j % 2 * 1024;
      *reinterpret_cast<uint32_t*>(to + at) = hi[j];
      if constexpr (Full) *reinterpret_cast<uint32_t*>(to + Tile<64>::half_bytes + at) = lo[j];
    }
    fence_async_proxy();
  };
  const auto values = [&](int i, int j) {  // of queries 8j + 2t, 8j + 2t + 1
    return *reinterpret_cast<const float2*>(row_values + i * N + 8 * j + 2 * t);
  };
  int step = 0;
  for (int block = begin; block < end; ++block) {
    float k_bar[D / 2], v_bar[D / 2];
#pragma unroll
    for (int j = 0; j < D / 2; ++j) k_bar[j] = v_bar[j] = 0;
    barrier_wait(ready, (block - begin) & 1);
    for (int h = kv_head * a.group; h < (kv_head + 1) * a.group; ++h)
      for (int m = first_seen(block); m < a.blocks; m += W) {
#pragma unroll 1
        for (int part = 0; part < kSteps; ++part, ++step) {
          const int parity = step & 1;
          float s[N / 2], s_dot[N / 2], dp[N / 2], dp_dot[N / 2];
          uint32_t p_hi[N / 4], p_lo[N / 4], w_hi[N / 4], w_lo[N / 4];
          uint32_t p_dot_hi[N / 4], p_dot_lo[N / 4], ds_dot_hi[N / 4], ds_dot_lo[N / 4];
          if constexpr (kTangents) {
            barrier_wait(full(kO), parity);
            wgmma_fence();
            multiply_rows<D, N, Full>(dp, v, o_bar, false);
          }
          barrier_wait(full(kQ), parity);
          wgmma_fence();
          multiply_rows<D, N, true>(s, k, q, false);
          wgmma_commit();
          if constexpr (kTangents) {
            barrier_wait(full(kQDot), parity);
            wgmma_fence();
            multiply_rows<D, N, true>(s_dot, k, q_dot, false);
            multiply_rows<D, N, true>(s_dot, k_dot, q, true);
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
          warpgroup_sync(1 + role);  // the step before has read the turned tile
          store_turned(turned, ds_dot_hi, ds_dot_lo, part);
          if constexpr (kForm) {  // Q' takes 2 w: exact in bf16
#pragma unroll
            for (int j = 0; j < N / 4; ++j) {
              w_hi[j] = pack(2 * low_of(w_hi[j]), 2 * high_of(w_hi[j]));
              w_lo[j] = pack(2 * low_of(w_lo[j]), 2 * high_of(w_lo[j]));
            }
          }
          if constexpr (kTangents && !kOneStep) store_turned(turned_w, w_hi, w_lo, part);

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
          wgmma_wait<1>();
          hold(v_bar), hold(p_hi), hold(p_lo);
          if constexpr (kTangents) {
            hold(p_dot_hi), hold(p_dot_lo);
            release(kO);
          }
          // O_bar_dot is read: its slot takes w
          if constexpr (kTangents && kOneStep) {
            if constexpr (!kForm) warpgroup_sync(1 + role);
            store_turned(turned_w, w_hi, w_lo, part);
          }
          if constexpr (!kOneStep) {
            release(kODot);
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
          float4 before[kOneStep ? D / 8 : 1] = {};
          float4* const sums = reinterpret_cast<float4*>(a.q_sums) + threadIdx.x % 128 +
                               (((int64_t(run) * a.directions + direction) * a.heads + h) * a.blocks + m) * (16 * D);
          warpgroup_sync(1 + role);
          wgmma_fence();
          multiply_columns<D, Full>(q_bar, turned, k, false);
          if constexpr (kTangents) multiply_columns<D, Full>(q_bar, turned_w, k_dot, true);
          wgmma_commit();
          if constexpr (kOneStep) {
            if (block > begin) {
#pragma unroll
              for (int j = 0; j < D / 8; ++j) before[j] = __ldcg(sums + 128 * j);
            }
            wgmma_wait<1>();
            hold(k_bar), hold(ds_dot_hi), hold(ds_dot_lo);
            if constexpr (kTangents) {
              hold(w_hi), hold(w_lo);
              release(kQDot);
            }
            release(kQ);
          }
          wgmma_wait<0>();
          hold(q_bar);
          if constexpr (kOneStep) release(kODot);
#pragma unroll
          for (int j = 0; j < D / 8; ++j) {
            float4 x = before[kOneStep ? j : 0];
            if (!kOneStep && block > begin) x = __ldcg(sums + 128 * j);
            __stcg(sums + 128 * j,
                   float4{x.x + q_bar[4 * j], x.y + q_bar[4 * j + 1], x.z + q_bar[4 * j + 2], x.w + q_bar[4 * j + 3]});
          }
        }
      }
    __syncwarp();
    if (lane == 0) barrier_arrive(vacant);

    // The two warpgroups' sums, exchanged where dS_dot was: the first writes K_bar_dot, the second V_bar_dot.
    if constexpr (W == 2) {
      float* const mine = reinterpret_cast<float*>(shared + (turned - base)) + threadIdx.x % 128;
      const float* const other = mine + (role == 0 ? 1 : -1) * (Cut::turned / 4);
      const auto exchange = [&](const float(&theirs)[D / 2], float(&ours)[D / 2]) {
        warpgroup_sync(1 + role);  // the turned tile is read
#pragma unroll
        for (int j = 0; j < D / 2; ++j) mine[128 * j] = theirs[j];
        asm volatile("bar.sync 3, 256;" ::: "memory");
#pragma unroll
        for (int j = 0; j < D / 2; ++j) ours[j] += other[128 * j];
        asm volatile("bar.sync 3, 256;" ::: "memory");
      };
      if (role == 0)
        exchange(v_bar, k_bar);
      else
        exchange(k_bar, v_bar);
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
        if (a.k_out != nullptr && (W == 1 || role == 0))
          *reinterpret_cast<float2*>(a.k_out + out + 8 * j) = {k_bar[at], k_bar[at + 1]};
        if (a.v_out != nullptr && (W == 1 || role == 1))
          *reinterpret_cast<float2*>(a.v_out + out + 8 * j) = {factor * v_bar[at], factor * v_bar[at + 1]};
      }
    }
  }
}

struct GatherArguments {
  const float* q_sums = nullptr;
  float* q_out = nullptr;  // (K, T, H*D)
  int runs = 1, run_begin[kMostRuns + 1] = {};
  float scale = 1;
  int tokens = 0, blocks = 0, heads = 0, width = 0, directions = 0;
};

/// Q_bar_dot = c times the sum of the runs, in their order. A thread block a tile of 64 queries, a thread what it held.
template <int D>
__global__ void __launch_bounds__(128) gather_kernel(const __grid_constant__ GatherArguments a) {
  const int m = blockIdx.x % a.blocks, head = blockIdx.x / a.blocks % a.heads,
            direction = blockIdx.x / a.blocks / a.heads;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int64_t run_size = int64_t(a.directions) * a.heads * a.blocks * 16 * D;
  const float4* const sums = reinterpret_cast<const float4*>(a.q_sums) + int64_t(blockIdx.x) * 16 * D + threadIdx.x;
  const int token = m * kBlock + 16 * warp + g;
  float* const out = a.q_out + ((int64_t(direction) * a.tokens + token) * a.heads + head) * a.width + 2 * t;
#pragma unroll
  for (int j = 0; j < D / 8; ++j) {
    float4 x = sums[128 * j];
    for (int run = 1; run < a.runs && a.run_begin[run] <= m; ++run) {
      const float4 y = __ldcs(sums + run * run_size + 128 * j);
      x.x += y.x, x.y += y.y, x.z += y.z, x.w += y.w;
    }
    if (8 * j + 2 * t >= a.width) continue;
    if (token < a.tokens) *reinterpret_cast<float2*>(out + 8 * j) = {a.scale * x.x, a.scale * x.y};
    if (token + 8 < a.tokens)
      *reinterpret_cast<float2*>(out + int64_t(8) * a.heads * a.width + 8 * j) = {a.scale * x.z, a.scale * x.w};
  }
}

}  // namespace hesper::attention_cuda
