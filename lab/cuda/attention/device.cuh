#pragma once
// Arrays, random numbers, errors and times on the GPU.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace lab {

inline void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

template <class T>
struct Array {
  T* data = nullptr;
  int64_t size = 0;
  Array() = default;
  explicit Array(int64_t n) { resize(n); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { cudaFree(data); }
  void resize(int64_t n) {
    cudaFree(data);
    check(cudaMalloc(&data, std::max<int64_t>(n, 1) * sizeof(T)));
    size = n;
  }
  void zero() { check(cudaMemset(data, 0, size * sizeof(T))); }
  void poison() { check(cudaMemset(data, 0xff, size * sizeof(T))); }  // NaN
};

__device__ inline uint64_t mix(uint64_t x) {
  x ^= x >> 33, x *= 0xff51afd7ed558ccdull, x ^= x >> 33, x *= 0xc4ceb9fe1a85ec53ull;
  return x ^ x >> 33;
}
static __global__ void normal_kernel(float* x, int64_t n, uint64_t seed, float scale) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x) {
    const uint64_t bits = mix(mix(seed) + i);
    const float u = ((bits >> 40) + 0.5f) * 0x1p-24f, a = (bits & 0xffffff) * 0x1p-24f;
    x[i] = scale * sqrtf(-2 * logf(u)) * cospif(2 * a);
  }
}
inline void fill_normal(Array<float>& x, uint64_t seed, float scale = 1) {
  normal_kernel<<<1024, 256>>>(x.data, x.size, seed, scale);
  check(cudaGetLastError());
}

static __global__ void error_kernel(const float* a, const double* b, int64_t n, double* sums) {
  double difference = 0, norm = 0;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x) {
    const double d = a[i] - b[i];
    difference += d * d, norm += b[i] * b[i];
  }
  atomicAdd(sums, difference), atomicAdd(sums + 1, norm);
}
/// |a - b|_F / |b|_F; NaN if an element of a was never written. Where b is zero but for rounding: |a - b|_F / sqrt(n).
inline double error_of(const float* a, const Array<double>& b) {
  Array<double> sums(2);
  sums.zero();
  error_kernel<<<256, 256>>>(a, b.data, b.size, sums.data);
  double s[2];
  check(cudaMemcpy(s, sums.data, sizeof s, cudaMemcpyDeviceToHost));
  return std::sqrt(s[0] / (s[1] > 1e-18 * b.size ? s[1] : b.size));
}

/// Median milliseconds of `repeats` runs after two more.
template <class F>
float median_ms(int repeats, F f) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin)), check(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = -2; i < repeats; ++i) {
    check(cudaEventRecord(begin));
    f();
    check(cudaEventRecord(end)), check(cudaEventSynchronize(end));
    float ms;
    check(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 0) times.push_back(ms);
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

}  // namespace lab
