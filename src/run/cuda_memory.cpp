#include "run/device_memory.h"

#include <ATen/Context.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>

#include <algorithm>

namespace hesper {
namespace {

/// The device made current, and LibTorch's allocator there even where no tensor has been yet.
struct On {
  explicit On(at::Device device) : guard(device) { at::globalContext().lazyInitDevice(at::kCUDA); }
  c10::DeviceIndex index() const { return guard.current_device().index(); }
  c10::cuda::CUDAGuard guard;
};

}  // namespace

std::optional<int> gpu_count() { return c10::cuda::device_count(); }

DeviceMemory device_memory(at::Device device) {
  const On on(device);
  size_t free = 0, total = 0;
  C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(on.index());
  const int64_t idle = stats.reserved_bytes[0].current - stats.allocated_bytes[0].current;
  return {static_cast<int64_t>(total - free), static_cast<int64_t>(free) + idle};
}

std::string device_name(at::Device device) {
  const On on(device);
  cudaDeviceProp properties{};
  C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, on.index()));
  return properties.name;
}

void release_device_memory(at::Device device) {
  const On on(device);
  c10::cuda::CUDACachingAllocator::emptyCache();
}

void limit_device_memory(at::Device device, int64_t bytes) {
  const On on(device);
  size_t free = 0, total = 0;
  C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  // Room for what a run moves there before its plan refuses a limit, with both numbers.
  const int64_t least = int64_t{64} << 20;
  const double fraction = static_cast<double>(std::max(bytes, least)) / static_cast<double>(total);
  c10::cuda::CUDACachingAllocator::setMemoryFraction(std::min(1.0, fraction), on.index());
}

}  // namespace hesper
