#include "run/memory.h"

#include <atomic>
#include <chrono>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

#include "run/device_memory.h"

namespace hesper {
namespace {

/// The number of KiB behind `key` in a file of "key: value kB" lines; -1 when it is not there.
int64_t kilobytes(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key)) return std::stoll(line.substr(key.size()));
  return -1;
}

/// A cgroup file that holds one number; the largest int64 for "max" or a missing file.
int64_t cgroup_number(const char* file) {
  int64_t value = std::numeric_limits<int64_t>::max();
  std::ifstream in(file);
  if (!(in >> value)) value = std::numeric_limits<int64_t>::max();
  return value;
}

/// The sum of the numbers behind "inactive_file" and "active_file" in a cgroup's memory.stat: cached pages of files,
/// such as mapped weights, which the system takes back when it needs them.
int64_t cached_files(const char* file) {
  std::ifstream in(file);
  int64_t sum = 0, value = 0;
  for (std::string name; in >> name >> value;)
    if (name == "inactive_file" || name == "active_file") sum += value;
  return sum;
}

}  // namespace

int64_t free_memory(at::Device device) {
  if (!device.is_cpu()) return device_memory(device).free;
  const int64_t available = kilobytes("/proc/meminfo", "MemAvailable:") * 1024;
  int64_t limit = cgroup_number("/sys/fs/cgroup/memory.max"), used = cgroup_number("/sys/fs/cgroup/memory.current");
  int64_t cached = cached_files("/sys/fs/cgroup/memory.stat");
  if (limit == std::numeric_limits<int64_t>::max()) {
    limit = cgroup_number("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    used = cgroup_number("/sys/fs/cgroup/memory/memory.usage_in_bytes");
    cached = cached_files("/sys/fs/cgroup/memory/memory.stat");
  }
  if (limit == std::numeric_limits<int64_t>::max() || used == std::numeric_limits<int64_t>::max()) return available;
  return std::min(available, limit - used + cached);
}

int64_t anonymous_memory() { return kilobytes("/proc/self/status", "RssAnon:") * 1024; }

int64_t allowed_memory(at::Device device) { return free_memory(device) + (device.is_cpu() ? anonymous_memory() : 0); }

struct PeakMemory::State {
  std::atomic<int64_t> peak{0};
  std::atomic<bool> stop{false};
  std::vector<int64_t> used_before;  // of GPUs
  std::thread sampler;
};

PeakMemory::PeakMemory(std::vector<at::Device> devices) : devices_(std::move(devices)), state_(new State) {
  if (!devices_[0].is_cpu()) {
    for (at::Device device : devices_) {
      release_device_memory(device);
      state_->used_before.push_back(device_memory(device).used);
    }
    return;
  }
  state_->peak = anonymous_memory();
  state_->sampler = std::thread([state = state_] {
    while (!state->stop) {
      state->peak = std::max(state->peak.load(), anonymous_memory());
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
}

PeakMemory::~PeakMemory() {
  state_->stop = true;
  if (state_->sampler.joinable()) state_->sampler.join();
  delete state_;
}

int64_t PeakMemory::peak() const {
  int64_t most = 0;
  for (size_t i = 0; i < state_->used_before.size(); ++i)
    most = std::max(most, device_memory(devices_[i]).used - state_->used_before[i]);
  if (!devices_[0].is_cpu()) return most;
  return std::max(state_->peak.load(), anonymous_memory());
}

}  // namespace hesper
