#include "ops/weight_buffers.h"

#include <mutex>
#include <vector>

namespace hesper {

struct WeightBuffers::Pool {
  std::mutex mutex{};
  std::vector<Tensor> free{};

  Tensor take() {
    const std::lock_guard lock(mutex);
    if (free.empty()) return at::empty({mapped_from}, at::kByte);
    Tensor buffer = free.back();
    free.pop_back();
    return buffer;
  }
  void give(const Tensor& buffer) {
    const std::lock_guard lock(mutex);
    free.push_back(buffer);
  }
};

WeightBuffers::WeightBuffers() : pool_(std::make_shared<Pool>()) {}

Tensor WeightBuffers::copy(const Tensor& weight, at::ScalarType dtype) const {
  const Tensor buffer = pool_->take();
  const auto back = [pool = pool_, buffer](void*) { pool->give(buffer); };
  Tensor out = at::from_blob(buffer.data_ptr(), weight.sizes(), back, weight.options().dtype(dtype));
  return out.copy_(weight);
}

}  // namespace hesper
