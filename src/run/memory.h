#pragma once
// Memory of this process and machine, bytes.
#include <cstdint>

namespace hesper {

/// The smaller of MemAvailable and the cgroup's limit less its use.
int64_t free_memory();
/// Anonymous resident memory now (mapped files, such as weights, do not count).
int64_t anonymous_memory();

/// Hands memory that is free inside the heap back to the system. A pass that has made and dropped many small tensors
/// leaves holes which the larger ones of the next cannot use.
void release_free_memory();

/// Peak of anonymous memory between construction and peak(), sampled by a thread every few milliseconds.
class PeakMemory {
 public:
  PeakMemory();
  ~PeakMemory();
  PeakMemory(const PeakMemory&) = delete;
  PeakMemory& operator=(const PeakMemory&) = delete;
  int64_t peak() const;

 private:
  struct State;
  State* state_;
};

}  // namespace hesper
