#include "ops/cuda/attention_planes.cuh"

namespace hesper::attention_cuda {
namespace {

// A thread block makes one tile; a thread one chunk of 8 columns at a time.
__global__ void __launch_bounds__(256) split_kernel(const __grid_constant__ SplitJobs jobs) {
  int tile = blockIdx.x, which = 0;
  while (tile >= jobs.job[which].directions * jobs.job[which].heads * jobs.blocks) {
    tile -= jobs.job[which].directions * jobs.job[which].heads * jobs.blocks;
    ++which;
  }
  const SplitJob& job = jobs.job[which];
  const int column_blocks = (jobs.width + 63) / 64, half = column_blocks * kBlock * 128;
  char* const out = job.tiles + int64_t(tile) * 2 * half;
  const int block = tile % jobs.blocks, head = tile / jobs.blocks % job.heads,
            direction = tile / jobs.blocks / job.heads;
  const int chunks = column_blocks * 8;
  for (int i = threadIdx.x; i < kBlock * chunks; i += blockDim.x) {
    const int row = i / chunks, chunk = i % chunks, token = block * kBlock + row, column = 8 * chunk;
    float x[8] = {};
    if (job.x != nullptr && token < jobs.tokens) {
      const float* const from =
          job.x + ((int64_t(direction) * jobs.tokens + token) * job.heads + head) * jobs.width + column;
      if (jobs.width % 4 == 0) {
#pragma unroll
        for (int j = 0; j < 8; j += 4)
          if (column + j < jobs.width) *reinterpret_cast<float4*>(x + j) = *reinterpret_cast<const float4*>(from + j);
      } else {
#pragma unroll
        for (int j = 0; j < 8; ++j)
          if (column + j < jobs.width) x[j] = from[j];
      }
    }
    uint32_t hi[4], lo[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) split(job.factor * x[2 * j], job.factor * x[2 * j + 1], hi[j], lo[j]);
    char* const to = out + chunk / 8 * kBlock * 128 + row * 128 + ((chunk % 8 ^ row % 8) << 4);
    *reinterpret_cast<uint4*>(to) = {hi[0], hi[1], hi[2], hi[3]};
    *reinterpret_cast<uint4*>(to + half) = {lo[0], lo[1], lo[2], lo[3]};
  }
}

__global__ void __launch_bounds__(256) rows_kernel(const __grid_constant__ RowJobs jobs) {
  const RowJob& job = jobs.job[blockIdx.y];
  const int64_t row_count = int64_t(jobs.blocks) * kBlock;
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;  // reads along heads
  if (i >= job.directions * jobs.heads * row_count) return;
  const int head = i % jobs.heads;
  const int64_t token = i / jobs.heads % row_count, direction = i / jobs.heads / row_count;
  float value = job.beyond;
  if (token < jobs.tokens)
    value = job.x == nullptr ? 0 : job.factor * job.x[(direction * jobs.tokens + token) * jobs.heads + head];
  job.out[(direction * jobs.heads + head) * row_count + token] = value;
}

// One warp a row of one head.
__global__ void __launch_bounds__(256) sums_kernel(const __grid_constant__ RowSums s) {
  const int64_t row_count = int64_t(s.blocks) * kBlock;
  const int64_t i = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (i >= s.directions * s.heads * row_count) return;
  const int head = i % s.heads, lane = threadIdx.x % 32;
  const int64_t token = i / s.heads % row_count, direction = i / s.heads / row_count;
  float sum = 0;
  if (token < s.tokens) {
    const int64_t shared = (token * s.heads + head) * s.width;
    const int64_t own = direction * s.tokens * s.heads * s.width + shared;
    for (int c = 2 * lane; c < s.width; c += 64) {
      const auto at = [c](const float* x, int64_t i) { return *reinterpret_cast<const float2*>(x + i + c); };
      if (s.o_bar_dot != nullptr) {
        const float2 x = at(s.o_bar_dot, own), y = at(s.o, shared);
        sum += x.x * y.x + x.y * y.y;
      }
      if (s.o_dot != nullptr) {
        const float2 x = at(s.o_bar, shared), y = at(s.o_dot, own);
        sum += x.x * y.x + x.y * y.y;
      }
    }
  }
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
  if (lane == 0) s.out[(direction * s.heads + head) * row_count + token] = sum;
}

int blocks_for(int64_t items, int64_t each) { return static_cast<int>((items + each - 1) / each); }

}  // namespace

void split_tiles(const SplitJobs& jobs, cudaStream_t stream) {
  int tiles = 0;
  for (int i = 0; i < jobs.count; ++i) tiles += jobs.job[i].directions * jobs.job[i].heads * jobs.blocks;
  split_kernel<<<tiles, 256, 0, stream>>>(jobs);
}

void transpose_rows(const RowJobs& jobs, cudaStream_t stream) {
  int most = 0;
  for (int i = 0; i < jobs.count; ++i) most = most > jobs.job[i].directions ? most : jobs.job[i].directions;
  const dim3 grid(blocks_for(int64_t(most) * jobs.heads * jobs.blocks * kBlock, 256), jobs.count);
  rows_kernel<<<grid, 256, 0, stream>>>(jobs);
}

void sum_rows(const RowSums& s, cudaStream_t stream) {
  sums_kernel<<<blocks_for(int64_t(s.directions) * s.heads * s.blocks * kBlock, 8), 256, 0, stream>>>(s);
}

}  // namespace hesper::attention_cuda
