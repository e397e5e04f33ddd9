#pragma once
// What the attention kernels take for a shape: plain arithmetic, which plans do where there is neither a GPU nor CUDA.
#include <cstdint>

namespace hesper::attention_cuda {

struct Shape {
  int64_t tokens = 1;    // T
  int64_t heads = 1;     // H
  int64_t kv_heads = 1;  // G, divides H
  int64_t width = 1;     // D
  float scale = 1;       // c
};

/// Width even and at most 128, kv_heads divides heads, tokens >= 1. Widths between are padded on the chip to the next
/// of 64, 80, 96, 128.
bool serves(const Shape& shape);

inline constexpr int kBlock = 64;  // rows of a tile
/// Tiles of T rows.
constexpr int blocks_of(const Shape& shape) { return static_cast<int>((shape.tokens + kBlock - 1) / kBlock); }
/// Bytes of a tile: hi and lo in bf16, columns in blocks of 64.
constexpr int64_t tile_bytes(int64_t width) { return (width + 63) / 64 * 2 * kBlock * 64 * 2; }

inline constexpr int kMostRuns = 16;
/// The key tiles of the adjoint sweep, cut into runs of a thread block each.
struct Runs {
  int count = 1, begin[kMostRuns + 1] = {};  // key tiles [begin, next begin) a run
};
/// The fewest within 3% of the least time on the processors of a Hopper GPU.
Runs runs_of(const Shape& shape, int64_t directions);

/// Bytes of the sums over runs: (runs, K, H, blocks) tiles of 64 x padded D, fp32.
int64_t sums_bytes(const Shape& shape, int64_t directions);
/// Bytes of device memory behind `workspace` (256-byte aligned) that any of the maps of attention.h needs.
int64_t workspace_bytes(const Shape& shape, int64_t directions);

}  // namespace hesper::attention_cuda
