#pragma once
// GPUs: how many there are, their names and memory, bytes.
#include <c10/core/Device.h>

#include <cstdint>
#include <optional>
#include <string>

namespace hesper {

/// Nothing in a build without CUDA.
std::optional<int> gpu_count();

struct DeviceMemory {
  int64_t used = 0;  // of the whole device, by everyone
  int64_t free = 0;  // not used, or taken by LibTorch's allocator and free in there
};
/// Throws std::logic_error in a build without CUDA.
DeviceMemory device_memory(at::Device device);
/// Gives the device what LibTorch's allocator has taken from it and does not use.
void release_device_memory(at::Device device);
/// LibTorch's allocator never takes more than `bytes` from the device: it gives back what it keeps first.
void limit_device_memory(at::Device device, int64_t bytes);
std::string device_name(at::Device device);

}  // namespace hesper
