#pragma once
// y = x W^T + b.  W (out, in), b (out) or none. A checkpoint may hold W^T (in, out), as GPT-2's does: then its rows and
// columns change places in every index of a selection.
//   y_dot     = x_dot W^T + x W_dot^T + b_dot
//   x_bar     = y_bar W                          W_bar     = y_bar^T x,  b_bar = sum y_bar
//   x_bar_dot = y_bar_dot W + y_bar W_dot        W_bar_dot = y_bar_dot^T x + y_bar^T x_dot
//   second order: <y_bar, W_dot_i x_dot_j + W_dot_j x_dot_i>
#include "ops/linear_maps.h"
#include "ops/op.h"

namespace hesper {

class Linear : public Op {
 public:
  enum class Stored { out_in, in_out };
  Linear(int x, int weight, int bias, Stored stored = Stored::out_in)
      : Op({x}, {weight, bias}), turned_(stored == Stored::in_out) {}
  Tensor forward(const Primal&, const Tensors& x, Kept&) const override;
  Tensor plain(const Primal&, const Tensors& x) const override;
  Tensors adjoint(const Primal&, const Tensor& y_bar, unsigned wanted, Kept&, Readout&) const override;
  Tensor forward_tangent(const Tangent&, const Tensors& x_dot, Kept&) const override;
  Tensors adjoint_tangent(const Tangent&, const Tensor& y_bar_dot, const Kept&, Readout&) const override;
  void second_order(const Tangent&, const Kept&, SecondOrder&) const override;
  OpCost cost(const OpShapes& s) const override {
    const int64_t out = s.parameters[0][turned_], in = s.parameters[0][!turned_], kept = s.selected[0] ? 1 : 0;
    const double product = 2.0 * static_cast<double>(out) * static_cast<double>(in);
    return {out, kept * in, kept * (in + out), kept * in, 0, 0, {product, product, product, product, 0}};
  }
  bool multiplies() const override { return true; }
  std::string name() const override { return "linear"; }
  /// True where the stored weight is (in, out).
  bool turned() const { return turned_; }
  /// x (rows, in) on the tape; where the weight is selected.
  const Tensor& input(const Kept& tape) const { return tape[0]; }
  /// y_bar (rows, out) on the tape; likewise.
  const Tensor& output_adjoint(const Kept& tape) const { return tape[1]; }

 private:
  int weight() const { return parameters[0]; }
  int bias() const { return parameters[1]; }
  LinearMaps maps() const { return {weight(), turned_}; }
  const bool turned_;
};

}  // namespace hesper
