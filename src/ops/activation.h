#pragma once
// y = phi(x) element by element, and the gated form y = phi(a) u of LLaMA's MLP.
//   phi:   y_dot = phi' x_dot;  x_bar = phi' y_bar;  x_bar_dot = phi' y_bar_dot + phi'' y_bar x_dot
//   gated: y_dot = phi' u a_dot + phi u_dot
//          a_bar = phi' u y_bar,  u_bar = phi y_bar
//          a_bar_dot = phi' u y_bar_dot + phi'' u y_bar a_dot + phi' y_bar u_dot
//          u_bar_dot = phi y_bar_dot + phi' y_bar a_dot
#include "ops/op.h"

namespace hesper {

/// Names as in transformers' configs: gelu is the erf form, gelu_tanh its tanh form (gelu_new, gelu_pytorch_tanh).
enum class Phi { relu, gelu, gelu_tanh, silu };

/// phi at x.
Tensor phi_value(Phi phi, const Tensor& x);
/// phi', phi'' at x. second is undefined for relu, where it is zero (the kink at 0 counts as 0).
struct PhiSlopes {
  Tensor first, second;
};
PhiSlopes phi_slopes(Phi phi, const Tensor& x);

class Activation : public Op {
 public:
  Activation(int x, Phi phi) : Op({x}, {}), phi_(phi) {}
  Tensor forward(const Primal&, const Tensors& x, Kept&) const override;
  Tensors adjoint(const Primal&, const Tensor& y_bar, unsigned wanted, Kept&, Readout&) const override;
  Tensor forward_tangent(const Tangent&, const Tensors& x_dot, Kept&) const override;
  Tensors adjoint_tangent(const Tangent&, const Tensor& y_bar_dot, const Kept&, Readout&) const override;
  void second_order(const Tangent&, const Kept&, SecondOrder&) const override;
  OpCost cost(const OpShapes& s) const override {
    const int64_t f = s.inputs[0], smooth = phi_ == Phi::relu ? 0 : f;
    return {f, f, f + smooth, smooth, smooth, phi_ == Phi::relu ? f : 3 * f};  // of phi_slopes
  }
  std::string name() const override { return "activation"; }

 private:
  Phi phi_;
};

class GatedActivation : public Op {
 public:
  GatedActivation(int a, int u, Phi phi) : Op({a, u}, {}), phi_(phi) {}
  Tensor forward(const Primal&, const Tensors& x, Kept&) const override;
  Tensors adjoint(const Primal&, const Tensor& y_bar, unsigned wanted, Kept&, Readout&) const override;
  Tensor forward_tangent(const Tangent&, const Tensors& x_dot, Kept&) const override;
  Tensors adjoint_tangent(const Tangent&, const Tensor& y_bar_dot, const Kept&, Readout&) const override;
  void second_order(const Tangent&, const Kept&, SecondOrder&) const override;
  OpCost cost(const OpShapes& s) const override {
    const int64_t f = s.inputs[0];
    return {f, 2 * f, (phi_ == Phi::relu ? 3 : 4) * f, 2 * f, f, f};
  }
  std::string name() const override { return "gated_activation"; }

 private:
  Phi phi_;
};

}  // namespace hesper
