#include "ops/cuda/attention_sizes.h"

#include <algorithm>
#include <cstdint>
#include <optional>

namespace hesper::attention_cuda {
namespace {

/// Runs of at most `most` steps, as few as that takes (tile i is seen by blocks - i tiles of queries, one step each);
/// nothing where that is more than `limit`.
std::optional<Runs> cut_runs(int blocks, int64_t most, int limit) {
  Runs runs;
  int64_t work = 0;
  for (int tile = 0; tile < blocks; ++tile) {
    if (work + blocks - tile > most) {
      if (runs.count == limit) return std::nullopt;
      runs.begin[runs.count++] = tile;
      work = 0;
    }
    work += blocks - tile;
  }
  runs.begin[runs.count] = blocks;
  return runs;
}

int64_t padded_width(const Shape& shape) {
  return shape.width <= 64 ? 64 : shape.width <= 80 ? 80 : shape.width <= 96 ? 96 : 128;
}

}  // namespace

bool serves(const Shape& s) {
  return s.tokens >= 1 && s.kv_heads >= 1 && s.heads % s.kv_heads == 0 && s.width >= 2 && s.width <= 128 &&
         s.width % 2 == 0;
}

Runs runs_of(const Shape& shape, int64_t directions) {
  constexpr int64_t kProcessors = 132;
  const int blocks = blocks_of(shape);
  const int64_t pairs = shape.kv_heads * directions, total = int64_t{blocks} * (blocks + 1) / 2;
  int64_t most[kMostRuns + 1] = {}, time[kMostRuns + 1] = {}, least = INT64_MAX;
  const int limit = std::min(kMostRuns, blocks);
  for (int runs = 1; runs <= limit; ++runs) {
    int64_t low = std::max<int64_t>(blocks, total / runs), high = total;  // the least longest run, by bisection
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      cut_runs(blocks, middle, runs) ? high = middle : low = middle + 1;
    }
    most[runs] = low;
    time[runs] = (pairs * runs + kProcessors - 1) / kProcessors * low;
    least = std::min(least, time[runs]);
  }
  int runs = 1;
  while (time[runs] > least * 103 / 100) ++runs;
  return *cut_runs(blocks, most[runs], runs);
}

int64_t sums_bytes(const Shape& shape, int64_t directions) {
  return runs_of(shape, directions).count * directions * shape.heads * blocks_of(shape) * kBlock * padded_width(shape) *
         4;
}

int64_t workspace_bytes(const Shape& shape, int64_t directions) {
  const int64_t head = blocks_of(shape) * tile_bytes(shape.width), rows = shape.heads * blocks_of(shape) * kBlock * 4;
  const int64_t of_tape = (2 * shape.heads + 2 * shape.kv_heads) * head + 2 * rows;
  return of_tape * (1 + directions) + sums_bytes(shape, directions) + 16 * 256;
}

}  // namespace hesper::attention_cuda
