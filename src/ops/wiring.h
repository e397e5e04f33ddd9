#pragma once
// The ops that are linear in their input: residual sum, rotary embedding, embedding tables. Their tangent is the same
// map, their adjoint_tangent its transpose; their second-order form is zero.
#include "ops/op.h"

namespace hesper {

/// y = a + b, the residual connection.
class Add : public Op {
 public:
  Add(int a, int b) : Op({a, b}, {}) {}
  Tensor forward(const Primal&, const Tensors& x, Kept&) const override { return x[0] + x[1]; }
  Tensors adjoint(const Primal&, const Tensor& y_bar, unsigned, Kept&, Readout&) const override {
    return {y_bar, y_bar};
  }
  Tensor forward_tangent(const Tangent&, const Tensors& x_dot, Kept&) const override {
    return plus(x_dot[0], x_dot[1]);
  }
  Tensors adjoint_tangent(const Tangent&, const Tensor& y_bar_dot, const Kept&, Readout&) const override {
    return {y_bar_dot, y_bar_dot};
  }
  void second_order(const Tangent&, const Kept&, SecondOrder&) const override {}
  OpCost cost(const OpShapes& s) const override { return {.width = s.inputs[0]}; }
  std::string name() const override { return "add"; }
};

/// Rotary position embedding of heads of width D in the rotate-half layout: channels (i, i + D/2) of a head are turned
/// by the angle position * inverse_frequency[i]. The transpose is the turn by the opposite angle.
class Rotary : public Op {
 public:
  /// inverse_frequencies: D/2 of them, fp64; positions 0 .. tokens-1 are tabulated on the device of the passes.
  Rotary(int x, const std::vector<double>& inverse_frequencies, int64_t tokens, at::Device device = at::kCPU);
  Tensor forward(const Primal&, const Tensors& x, Kept&) const override;
  Tensors adjoint(const Primal&, const Tensor& y_bar, unsigned, Kept&, Readout&) const override;
  Tensor forward_tangent(const Tangent&, const Tensors& x_dot, Kept&) const override;
  Tensors adjoint_tangent(const Tangent&, const Tensor& y_bar_dot, const Kept&, Readout&) const override;
  void second_order(const Tangent&, const Kept&, SecondOrder&) const override {}
  OpCost cost(const OpShapes& s) const override { return {.width = s.inputs[0], .temporaries = 3 * s.inputs[0]}; }
  std::string name() const override { return "rotary"; }

 private:
  Tensor angles(const Tensor& wide, const Tensor& low, const Tokens& tokens, at::ScalarType dtype) const;
  Tensor turn(const Tensor& x, const Tokens& tokens, bool back) const;
  Tensor turn_tangent(const Tangent& t, const Tensor& x, bool back) const;
  Tensor cos_, sin_;          // (tokens, D/2) fp64
  Tensor cos_low_, sin_low_;  // the same, fp32
};

/// y = rows of a table (V, C), picked by token id or by position + offset (OPT: offset 2).
class Embedding : public Op {
 public:
  enum class By { token, position };
  Embedding(By by, int table, int64_t offset) : Op({}, {table}), by_(by), offset_(offset) {}
  Tensor forward(const Primal&, const Tensors&, Kept&) const override;
  Tensors adjoint(const Primal&, const Tensor& y_bar, unsigned, Kept&, Readout&) const override;
  Tensor forward_tangent(const Tangent&, const Tensors&, Kept&) const override;
  Tensors adjoint_tangent(const Tangent&, const Tensor& y_bar_dot, const Kept&, Readout&) const override;
  void second_order(const Tangent&, const Kept&, SecondOrder&) const override {}
  OpCost cost(const OpShapes& s) const override { return {.width = s.parameters[0][1]}; }
  std::string name() const override { return "embedding"; }

 private:
  Tensor rows(const Tokens& tokens) const;  // (rows) int64
  By by_;
  int64_t offset_;
};

}  // namespace hesper
