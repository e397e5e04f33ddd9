#pragma once
// Weights of a model larger than a device: they stay in the mapped file, and visit the device one after another. A
// thread copies those that a pass will ask for next through pinned memory on a stream of its own, while the device
// computes with those before them.
#include <c10/core/Event.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <list>
#include <memory>
#include <mutex>
#include <thread>

#include "ops/op.h"

namespace hesper {

class WeightStream {
 public:
  /// stored: every parameter, on the CPU. order: those that will be asked for, as a pass goes up; a pass that goes down
  /// asks backwards. bytes: what visitors may take of the device; one of them may be larger.
  WeightStream(Tensors stored, std::vector<int> order, at::Device device, int64_t bytes);
  ~WeightStream();
  WeightStream(const WeightStream&) = delete;
  WeightStream& operator=(const WeightStream&) = delete;

  /// Parameter p on the device, as stored. Calls may come from one thread at a time.
  Tensor fetch(int p);

 private:
  struct Visitor {
    Visitor(int p, Tensor there, at::Device device)
        : p(p), there(std::move(there)), ready(device.type()), done(device.type()) {}
    int p;
    Tensor there;
    c10::Event ready, done;  // its memory may be written; it is there
    bool issued = false;     // `done` stands in the copying stream
    std::exception_ptr error{};
  };
  using Shared = std::shared_ptr<Visitor>;

  Shared find(int p) const;
  Shared request(int p, bool first);
  void make_room(const std::vector<int>& wanted);
  void copy_all();  // the thread

  Tensors stored_;
  std::vector<int> order_, place_;  // place_[p]: of parameter p in order_
  at::Device device_;
  int64_t bytes_;
  int last_ = 0, direction_ = 1;
  std::list<Shared> here_;  // the least recently used first
  std::deque<Shared> queue_;
  bool stop_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::thread thread_;
};

}  // namespace hesper
