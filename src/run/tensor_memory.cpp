#include "run/tensor_memory.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace hesper {
namespace {

constexpr size_t kPage = 4096;
// What is held at most: the most that was ever in use, and so much more. Room for free blocks, that is, which find
// tensors of their size again: a lot behind the peak, little on the way there.
constexpr size_t kSpare = size_t{8} << 20, kSpareShare = 16;  // of the most in use
constexpr size_t kFit = 8;                                    // a block serves if it is larger by at most an eighth

class Blocks {
 public:
  void* take(size_t bytes) {
    const size_t size = (bytes + kPage - 1) / kPage * kPage;
    {
      const std::lock_guard lock(mutex_);
      if (void* place = reuse(size)) return place;
    }
    make_room(size);
    void* place = map(size);
    if (place == MAP_FAILED) {
      trim();
      place = map(size);
    }
    TORCH_CHECK(place != MAP_FAILED, "out of memory: ", bytes,
                " bytes for a tensor; --memory-limit or a smaller run may help");
    const std::lock_guard lock(mutex_);
    sizes_[place] = size;
    use(size);
    return place;
  }

  /// False where nothing here is at `place`.
  bool give(void* place) {
    const std::lock_guard lock(mutex_);
    const auto it = sizes_.find(place);
    if (it == sizes_.end()) return false;
    const size_t size = it->second;
    in_use_ -= size, spare_ += size;
    ++now_;
    by_age_.emplace(now_, free_.emplace(size, Free{place, now_}));
    return true;
  }

  /// Unmaps all free blocks.
  void trim() { unmap_until(0); }

 private:
  struct Free {
    void* place;
    uint64_t since;
  };
  using BySize = std::multimap<size_t, Free>;  // of one size the latest last

  /// Unmaps free blocks until `size` more may be taken.
  void make_room(size_t size) {
    size_t most = 0, held = 0;
    {
      const std::lock_guard lock(mutex_);
      most = most_in_use_ + std::max(kSpare, most_in_use_ / kSpareShare);
      held = in_use_ + size;
    }
    unmap_until(most > held ? most - held : 0);
  }
  /// Those longest free first, until `keep` bytes are left.
  void unmap_until(size_t keep) {
    std::vector<std::pair<void*, size_t>> back;
    {
      const std::lock_guard lock(mutex_);
      while (spare_ > keep) {
        const auto oldest = by_age_.begin()->second;
        back.emplace_back(oldest->second.place, oldest->first);
        sizes_.erase(oldest->second.place);
        forget(oldest);
      }
    }
    for (const auto& [place, size] : back) munmap(place, size);
  }
  void use(size_t size) {
    in_use_ += size;
    most_in_use_ = std::max(most_in_use_, in_use_);
  }

  static void* map(size_t size) {
    return mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  void* reuse(size_t size) {
    auto it = free_.upper_bound(size);
    if (it != free_.begin() && std::prev(it)->first == size) --it;
    if (it == free_.end() || it->first > size + size / kFit) return nullptr;
    void* place = it->second.place;
    use(it->first);
    forget(it);
    return place;
  }
  void forget(BySize::iterator it) {
    spare_ -= it->first;
    by_age_.erase(it->second.since);
    free_.erase(it);
  }

  std::mutex mutex_;
  std::unordered_map<void*, size_t> sizes_;  // of all blocks
  BySize free_;
  std::map<uint64_t, BySize::iterator> by_age_;
  size_t in_use_ = 0, most_in_use_ = 0, spare_ = 0;
  uint64_t now_ = 0;
};

// Never destroyed: tensors may outlive main.
Blocks& blocks() {
  static Blocks* const all = new Blocks;
  return *all;
}

void drop(void* place) {
  const bool whole_pages = reinterpret_cast<uintptr_t>(place) % kPage == 0;
  if (!whole_pages || !blocks().give(place)) c10::free_cpu(place);
}

struct TensorMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* place = bytes < static_cast<size_t>(kWholeBlocks) ? c10::alloc_cpu(bytes) : blocks().take(bytes);
    return {place, place, &drop, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &drop; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};

}  // namespace

void keep_tensors_in_blocks() { c10::SetCPUAllocator(new TensorMemory, 1); }

void release_free_memory() {
  blocks().trim();
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

}  // namespace hesper
