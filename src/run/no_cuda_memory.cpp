// Stands in for cuda_memory.cpp in builds without CUDA.
#include <stdexcept>

#include "run/device_memory.h"

namespace hesper {

std::optional<int> gpu_count() { return std::nullopt; }
DeviceMemory device_memory(at::Device device) {
  throw std::logic_error("[memory] this build has no CUDA, so none of " + device.str());
}
void release_device_memory(at::Device device) { device_memory(device); }
void limit_device_memory(at::Device device, int64_t) { device_memory(device); }
std::string device_name(at::Device device) { return device.str(); }

}  // namespace hesper
