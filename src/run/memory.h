#pragma once
// Memory of this process and machine, bytes.
#include <c10/core/Device.h>

#include <cstdint>
#include <vector>

#include "run/tensor_memory.h"

namespace hesper {

/// The smaller of MemAvailable and the cgroup's limit less its use, cached files aside; of a GPU: what it has free,
/// what LibTorch has taken from it and does not use included.
int64_t free_memory(at::Device device = at::kCPU);
/// Anonymous resident memory now (mapped files, such as weights, do not count).
int64_t anonymous_memory();

/// What a run may take: free_memory, and on a CPU what this process has already, which forecasts count too.
int64_t allowed_memory(at::Device device);

/// Peak of memory between construction and peak(). CPU: anonymous memory, sampled by a thread every few milliseconds.
/// GPU: what has been taken from it since construction, all that LibTorch holds included (it gives nothing back); of
/// several the most.
class PeakMemory {
 public:
  explicit PeakMemory(std::vector<at::Device> devices = {at::kCPU});
  ~PeakMemory();
  PeakMemory(const PeakMemory&) = delete;
  PeakMemory& operator=(const PeakMemory&) = delete;
  int64_t peak() const;

 private:
  struct State;
  std::vector<at::Device> devices_;
  State* state_;
};

}  // namespace hesper
