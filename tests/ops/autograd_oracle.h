// What LibTorch's autograd says of an op: the oracle of expect_second_order.
#pragma once

#include "ops/op_world.h"

namespace hesper::test {

/// Gradients of the scalar s in `leaves`, zeros where it does not depend on one. `graph`: to be differentiated again.
Tensors gradients(const Tensor& s, const Tensors& leaves, bool graph);
/// A copy of p that gradients can be taken in.
Point leaf(const Point& p);

/// Derivatives of s(x, theta, y_bar) = <y_bar, plain(x, theta)> on the rows of one window.
struct Oracle {
  const Op& op;
  const OpWorld& world;
  Tokens tokens;

  Point adjoint(const Point& at_, const Tensor& y_bar) const;
  /// J d, by differentiating J^T z in z.
  Tensor tangent(const Point& at_, const Point& d) const;
  /// The derivative of the adjoint along (d, y_bar_dot).
  Point adjoint_tangent(const Point& at_, const Tensor& y_bar, const Point& d, const Tensor& y_bar_dot) const;

 private:
  Tensor plain(const Point& at_) const;
};

}  // namespace hesper::test
