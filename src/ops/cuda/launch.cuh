#pragma once
// What the elementwise launchers share.
#include <stdexcept>
#include <string>

#include "ops/cuda/elementwise.h"
#include "ops/cuda/split.cuh"

namespace hesper::cuda {

constexpr int kThreads = 256;
inline unsigned blocks_of(int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

inline void check_launch(const char* name) {
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess)
    throw std::runtime_error(std::string("[cuda] ") + name + ": " + cudaGetErrorString(error));
}

/// Calls f with the writer of a layout.
template <class F>
void with_layout(Layout layout, void* out, F f) {
  switch (layout) {
    case Layout::fp32:
      return f(AsFloat{static_cast<float*>(out)});
    case Layout::bf16x3:
      return f(AsBf16x3{static_cast<Bf16*>(out)});
    case Layout::bf16:
      return f(AsBf16{static_cast<Bf16*>(out)});
  }
}

/// Calls f with two writers of planes of one kind.
template <class F>
void with_planes(Planes a, Planes b, F f) {
  const auto bf16 = [](void* p) { return static_cast<Bf16*>(p); };
  if (a.lo)
    f(AsPlanes{bf16(a.hi), bf16(a.lo)}, AsPlanes{bf16(b.hi), bf16(b.lo)});
  else
    f(AsBf16{bf16(a.hi)}, AsBf16{bf16(b.hi)});
}

}  // namespace hesper::cuda
