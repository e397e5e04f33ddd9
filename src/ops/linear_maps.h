#pragma once
// The maps of one matrix W (out, in), as the ops that multiply by one (or by one of several) share them. `turned`: the
// parameter is stored as W^T (in, out).
#include "ops/op.h"

namespace hesper {

struct LinearMaps {
  int weight;
  bool turned = false;

  /// W (out, in), a view.
  Tensor matrix(const Parameters&, at::ScalarType dtype) const;
  /// The same as tangents are multiplied by it (Parameters::factor).
  Tensor factor(const Parameters&) const;
  /// W_bar += y_bar^T x into row `first` on; y_bar ((K,) tokens, out), x ((K,) tokens, in).
  void outer(Readout&, const Tensor& y_bar, const Tensor& x, int64_t first = 0) const;
  /// y_dot (K, tokens, out) += x W_dot^T, x (tokens, in).
  void add_step(const Tangent&, const Tensor& x, Tensor& y_dot) const;
  /// x_bar_dot (K, tokens, in) += y_bar W_dot, y_bar (tokens, out).
  void add_step_transposed(const Tangent&, const Tensor& y_bar, Tensor& x_bar_dot) const;
};

}  // namespace hesper
