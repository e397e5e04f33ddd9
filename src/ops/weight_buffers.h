#pragma once
// Host memory that copies of weights pass through one after another. Were each copy allocated anew, its place would be
// taken in part by a smaller tensor while it is gone, and the next copy would need another: holes that grow to several
// weights.
#include <memory>

#include "ops/op.h"

namespace hesper {

/// Bytes from which malloc maps an allocation by itself and unmaps it when it is freed (set in cli/main.cpp): larger
/// ones leave no holes.
inline constexpr int64_t mapped_from = int64_t{32} << 20;

class WeightBuffers {
 public:
  WeightBuffers();

  /// A contiguous copy of a contiguous `weight` in `dtype`, of fewer than mapped_from bytes. Its buffer is handed out
  /// again once every tensor that shares it is gone; what no copy has reached of it takes no memory. Threads may copy
  /// at a time, each to a buffer of its own.
  Tensor copy(const Tensor& weight, at::ScalarType dtype) const;

 private:
  struct Pool;
  std::shared_ptr<Pool> pool_;
};

}  // namespace hesper
