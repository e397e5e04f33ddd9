#pragma once
// What runs before the sweeps: fp32 tensors as the engine stores them become tiles of bf16 hi and lo, and the values a
// row (L, Dl, r, Dl_dot) become contiguous by head.
#include <cuda_runtime.h>

#include "ops/cuda/attention_tiles.cuh"

namespace hesper::attention_cuda {

struct SplitJob {
  const float* x = nullptr;  // (directions, T, heads*width); null: zeros
  char* tiles = nullptr;     // (directions, heads, blocks) tiles
  int heads = 0, directions = 0;
  float factor = 1;
};
struct SplitJobs {
  SplitJob job[8];
  int count = 0, tokens = 0, width = 0, blocks = 0;
};

struct RowJob {  // one of: out (directions, H, blocks*64) = factor * x (directions, T, H), `beyond` where t >= T
  const float* x = nullptr;
  float* out = nullptr;
  int directions = 0;
  float factor = 1, beyond = 0;
};
struct RowJobs {
  RowJob job[3];
  int count = 0, tokens = 0, heads = 0, blocks = 0;
};

/// Dl_dot = rowsum(o_bar_dot * o + o_bar * o_dot), (K, H, blocks*64), 0 beyond T; either term's null factor = zero.
struct RowSums {
  const float *o_bar_dot = nullptr, *o = nullptr, *o_bar = nullptr, *o_dot = nullptr;
  float* out = nullptr;
  int tokens = 0, heads = 0, width = 0, blocks = 0, directions = 0;
};

void split_tiles(const SplitJobs& jobs, cudaStream_t stream);
void transpose_rows(const RowJobs& jobs, cudaStream_t stream);
void sum_rows(const RowSums& sums, cudaStream_t stream);

}  // namespace hesper::attention_cuda
