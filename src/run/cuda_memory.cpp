#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>

#include "run/device_memory.h"

namespace hesper {

DeviceMemory device_memory(at::Device device) {
  const c10::cuda::CUDAGuard guard(device);
  size_t free = 0, total = 0;
  C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(guard.current_device().index());
  const int64_t idle = stats.reserved_bytes[0].current - stats.allocated_bytes[0].current;
  return {static_cast<int64_t>(total - free), static_cast<int64_t>(free) + idle};
}

std::string device_name(at::Device device) {
  const c10::cuda::CUDAGuard guard(device);
  cudaDeviceProp properties{};
  C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, guard.current_device().index()));
  return properties.name;
}

void release_device_memory(at::Device device) {
  const c10::cuda::CUDAGuard guard(device);
  c10::cuda::CUDACachingAllocator::emptyCache();
}

}  // namespace hesper
