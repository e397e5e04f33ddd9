#include "ops/weight_stream.h"

#include <ATen/Parallel.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cstring>

namespace hesper {
namespace {

constexpr int64_t kSlot = int64_t{64} << 20;  // of pinned memory; two of them

c10::Stream current_stream(at::Device device) { return c10::impl::VirtualGuardImpl(device.type()).getStream(device); }

}  // namespace

WeightStream::WeightStream(Tensors stored, std::vector<int> order, at::Device device, int64_t bytes)
    : stored_(std::move(stored)), place_(stored_.size(), -1), device_(device), bytes_(bytes) {
  for (int p : order) {
    if (place_[p] >= 0) continue;  // read by several ops: where the first one is
    place_[p] = static_cast<int>(order_.size());
    order_.push_back(p);
  }
  thread_ = std::thread([this] { copy_all(); });
}

WeightStream::~WeightStream() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

WeightStream::Shared WeightStream::find(int p) const {
  const auto it = std::find_if(here_.begin(), here_.end(), [&](const Shared& v) { return v->p == p; });
  return it == here_.end() ? nullptr : *it;
}

/// Room for p, in the order of the computing stream, and a place in the queue.
WeightStream::Shared WeightStream::request(int p, bool first) {
  auto v = std::make_shared<Visitor>(p, at::empty(stored_[p].sizes(), stored_[p].options().device(device_)), device_);
  v->ready.record(current_stream(device_));
  here_.push_back(v);
  first ? queue_.push_front(v) : queue_.push_back(v);
  return v;
}

/// Lets go of those not wanted, the least recently used first, until what is here takes at most bytes_.
void WeightStream::make_room(const std::vector<int>& wanted) {
  int64_t held = 0;
  for (const Shared& v : here_) held += static_cast<int64_t>(v->there.nbytes());
  for (auto it = here_.begin(); it != here_.end() && held > bytes_;) {
    const bool keep = !(*it)->issued || std::find(wanted.begin(), wanted.end(), (*it)->p) != wanted.end();
    if (keep) {
      ++it;
      continue;
    }
    held -= static_cast<int64_t>((*it)->there.nbytes());
    (*it)->done.block(current_stream(device_));  // its memory is not handed on before it has been written
    it = here_.erase(it);
  }
}

Tensor WeightStream::fetch(int p) {
  std::unique_lock lock(mutex_);
  const int at = std::max(place_[p], 0);
  if (at != last_) direction_ = at > last_ ? 1 : -1;
  last_ = at;
  std::vector<int> wanted = {p};
  auto sum = static_cast<int64_t>(stored_[p].nbytes());
  for (int next = at + direction_; next >= 0 && next < static_cast<int>(order_.size()); next += direction_) {
    sum += static_cast<int64_t>(stored_[order_[next]].nbytes());
    if (sum > bytes_) break;
    wanted.push_back(order_[next]);
  }
  make_room(wanted);
  Shared mine = find(p);
  if (!mine) mine = request(p, true);
  here_.splice(here_.end(), here_, std::find(here_.begin(), here_.end(), mine));
  for (int q : wanted)
    if (!find(q)) request(q, false);
  changed_.notify_all();
  changed_.wait(lock, [&] { return mine->issued; });
  if (mine->error) std::rethrow_exception(mine->error);
  mine->done.block(current_stream(device_));
  return mine->there;
}

void WeightStream::copy_all() {
  const c10::impl::VirtualGuardImpl guard(device_.type());
  const c10::StreamGuard stream(guard.getStreamFromGlobalPool(device_));
  struct Slot {
    Tensor memory;
    c10::Event free;
  };
  std::vector<Slot> slots;
  std::exception_ptr broken;
  try {
    for (int i = 0; i < 2; ++i)
      slots.push_back(
          {at::empty({kSlot}, at::TensorOptions(at::kByte).pinned_memory(true)), c10::Event(device_.type())});
  } catch (...) {
    broken = std::current_exception();
  }
  size_t turn = 0;
  for (;;) {
    Shared v;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
      if (stop_) break;
      v = queue_.front();
      queue_.pop_front();
    }
    try {
      if (broken) std::rethrow_exception(broken);
      v->ready.block(stream.current_stream());
      const Tensor from = stored_[v->p].contiguous();
      const auto* bytes = static_cast<const char*>(from.const_data_ptr());
      const Tensor to = at::from_blob(v->there.data_ptr(), {static_cast<int64_t>(from.nbytes())},
                                      at::TensorOptions(at::kByte).device(device_));
      for (int64_t begin = 0; begin < to.numel(); begin += kSlot) {
        Slot& slot = slots[turn++ % slots.size()];
        slot.free.synchronize();
        const int64_t size = std::min(kSlot, to.numel() - begin);
        auto* pinned = static_cast<char*>(slot.memory.data_ptr());
        at::parallel_for(0, size, int64_t{4} << 20, [&](int64_t i, int64_t end) {
          std::memcpy(pinned + i, bytes + begin + i, static_cast<size_t>(end - i));
        });
        to.narrow(0, begin, size).copy_(slot.memory.narrow(0, 0, size), true);
        slot.free.record(stream.current_stream());
      }
      v->done.record(stream.current_stream());
    } catch (...) {
      v->error = std::current_exception();
    }
    {
      const std::lock_guard lock(mutex_);
      v->issued = true;
    }
    changed_.notify_all();
  }
  for (Slot& slot : slots) slot.free.synchronize();
}

}  // namespace hesper
