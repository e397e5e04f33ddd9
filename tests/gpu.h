// For the tests that need a GPU: they skip themselves, with a message, where there is none.
#pragma once

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <gtest/gtest.h>

namespace hesper::test {

inline bool has_gpu() { return at::hasCUDA() && at::detail::getCUDAHooks().deviceCount() > 0; }
inline at::Device gpu(int i = 0) { return {at::kCUDA, static_cast<c10::DeviceIndex>(i)}; }
inline int gpus() { return has_gpu() ? static_cast<int>(at::detail::getCUDAHooks().deviceCount()) : 0; }

}  // namespace hesper::test

#define HESPER_NEEDS_GPUS(n) \
  if (hesper::test::gpus() < n) GTEST_SKIP() << hesper::test::gpus() << " CUDA devices on this machine, not " << n
#define HESPER_NEEDS_GPU() \
  if (!hesper::test::has_gpu()) GTEST_SKIP() << "no CUDA device on this machine"
