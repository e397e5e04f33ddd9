// For the tests that need a GPU: they skip themselves, with a message, where there is none.
#pragma once

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <gtest/gtest.h>

namespace hesper::test {

inline bool has_gpu() { return at::hasCUDA() && at::detail::getCUDAHooks().deviceCount() > 0; }
inline at::Device gpu() { return {at::kCUDA, 0}; }

}  // namespace hesper::test

#define HESPER_NEEDS_GPU() \
  if (!hesper::test::has_gpu()) GTEST_SKIP() << "no CUDA device on this machine"
