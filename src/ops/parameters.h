#pragma once
// The checkpoint's parameters as the passes ask for them: by number, in the precision of the pass.
#include <memory>

#include "ops/op.h"
#include "ops/tier_products.h"

namespace hesper {

class WeightStream;

class Parameters {
 public:
  /// stored: every parameter as the checkpoint has it. working: the precision of the tangent passes, converted once
  /// and kept (see kept_as_stored); any other precision (an fp64 primal pass) is converted at each use and dropped.
  /// products: how the tangent passes multiply by them.
  Parameters(Tensors stored, at::ScalarType working, at::Device device, Products products = Products::full);
  /// The same with a device for each parameter; `device()` is that of what has none of its own.
  Parameters(Tensors stored, at::ScalarType working, at::Device device, std::vector<at::Device> devices,
             Products products = Products::full);
  /// Nothing but small parameters kept: the others are converted from `stored` at every use, and on a GPU sent there
  /// ahead of it, `order` and `bytes` as of WeightStream.
  static Parameters streamed(Tensors stored, at::ScalarType working, at::Device device, Products products,
                             std::vector<int> order, int64_t bytes);

  /// Parameter `p` in `dtype`.
  Tensor get(int p, at::ScalarType dtype) const;
  /// Parameter `p` as tangents are multiplied by it (tier_products.h): the checkpoint's own bf16 where that is at hand
  /// and serves, else in working precision.
  Tensor factor(int p) const;
  /// The same parameters, multiplied in another way.
  Parameters with(Products products) const;
  /// The same parameters with some replaced (autograd engine, finite differences).
  Parameters with(const std::vector<std::pair<int, Tensor>>& replaced) const;

  const Tensor& stored(int p) const { return stored_[p]; }
  int count() const { return static_cast<int>(stored_.size()); }
  at::ScalarType working() const { return working_; }
  at::Device device() const { return device_; }
  const std::vector<at::Device>& devices() const { return devices_; }
  Products products() const { return products_; }

 private:
  Tensor held(int p) const;

  Tensors stored_, kept_;  // kept_[p] is undefined where p is streamed
  at::ScalarType working_;
  at::Device device_;
  std::vector<at::Device> devices_;  // by parameter
  Products products_;
  std::shared_ptr<WeightStream> stream_{};
};

/// True where a matrix is kept in the checkpoint's precision and converted at each use: on a GPU, where it takes fewer
/// bytes than in `working`. A conversion costs little there beside a product of thousands of rows.
bool kept_as_stored(size_t dimensions, at::ScalarType stored, at::ScalarType working, at::Device device);

/// Parameters of at most so many entries are kept even where the others are streamed: norms and biases.
inline constexpr int64_t small_parameter = int64_t{1} << 18;

}  // namespace hesper
