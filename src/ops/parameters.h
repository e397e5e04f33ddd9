#pragma once
// The checkpoint's parameters as the passes ask for them: by number, in the precision of the pass.
#include "ops/op.h"
#include "ops/tier_products.h"

namespace hesper {

class Parameters {
 public:
  /// stored: every parameter as the checkpoint has it. working: the precision of the tangent passes, converted once
  /// and kept; any other precision (an fp64 primal pass) is converted at each use and dropped.
  /// products: how the tangent passes multiply by them.
  Parameters(Tensors stored, at::ScalarType working, at::Device device, Products products = Products::full);

  /// Parameter `p` in `dtype`.
  Tensor get(int p, at::ScalarType dtype) const;
  /// The same parameters with some replaced (autograd engine, finite differences).
  Parameters with(const std::vector<std::pair<int, Tensor>>& replaced) const;

  const Tensor& stored(int p) const { return stored_[p]; }
  int count() const { return static_cast<int>(stored_.size()); }
  at::ScalarType working() const { return working_; }
  at::Device device() const { return device_; }
  Products products() const { return products_; }

 private:
  Tensors stored_, kept_;
  at::ScalarType working_;
  at::Device device_;
  Products products_;
};

}  // namespace hesper
