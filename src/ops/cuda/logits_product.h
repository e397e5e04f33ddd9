#pragma once
// The product of the head with its map of logits tangents (logits_product.cuh), for large tiles of words.
//   hi + lo = f (x_dot u^T - mean),  hi = bf16 of it, lo = bf16 of what is left
#include <cuda_runtime_api.h>

#include <cstdint>

namespace hesper::cuda {

struct LogitsProduct {
  int64_t directions, rows, words, inner;  // K, tokens, n, width of the factors; words and inner multiples of 8
  const void* x_dot;                       // (K, rows, inner) bf16
  int64_t x_row;                           // entries from one row to the next, a multiple of 8
  const void* u;                           // (n, inner) bf16
  const float* f;                          // (rows, n)
  const float* mean;                       // (K, rows)
  void *hi, *lo;                           // (K, rows, n) bf16; lo may be null
  int64_t row;                             // of hi and lo: entries from one token's to the next, a multiple of 8
};

int64_t workspace_bytes(const LogitsProduct& p);
/// Throws std::runtime_error with the shape that CUTLASS refuses.
void logits_product(cudaStream_t stream, const LogitsProduct& p, void* workspace);

}  // namespace hesper::cuda
