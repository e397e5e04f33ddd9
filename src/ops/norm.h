#pragma once
// Layer norm and RMS norm over the last axis, width C; or over each of the heads of width C = width/heads that it is
// made of, which share one g and b. With c = x - mean(x) (layer norm) or c = x (RMS norm), r = sqrt(mean(c^2) + eps),
// xh = c / r, y = g xh + b (g = 1 and b = 0 where absent; Gemma stores g - 1). c_dot likewise from x_dot:
//   a = mean(xh c_dot) = r_dot;  xh_dot = (c_dot - xh a)/r;  y_dot = g xh_dot + g_dot xh + b_dot
//   u = g y_bar, m = mean(xh u):  x_bar = (u - mean(u) - xh m)/r            (mean(u) for layer norm only)
//   u_dot = g y_bar_dot + g_dot y_bar:
//   x_bar_dot = -(a/r) x_bar + (u_dot - mean(u_dot) - xh_dot m - xh mean(xh_dot u + xh u_dot))/r
// Differentiating xh_dot once more along j gives, with s = a/r, k = eps/r^2 (mean(xh^2) = 1 - k):
//   <u, xh''[i,j]> = -s_j (u.xh_dot_i) - s_i (u.xh_dot_j) - C m (mean(xh_dot_i xh_dot_j) + k s_i s_j)
#include "ops/op.h"

namespace hesper {

namespace fused {
struct NormTape;
}

class Norm : public Op {
 public:
  enum class Kind { layer, rms };
  /// g = gain_offset + the stored gain.
  Norm(Kind kind, int x, int gain, int bias, double eps, int64_t heads = 1, double gain_offset = 0)
      : Op({x}, {gain, bias}), kind_(kind), eps_(eps), heads_(heads), gain_offset_(gain_offset) {}
  Tensor forward(const Primal&, const Tensors& x, Kept&) const override;
  Tensors adjoint(const Primal&, const Tensor& y_bar, unsigned wanted, Kept&, Readout&) const override;
  Tensor forward_tangent(const Tangent&, const Tensors& x_dot, Kept&) const override;
  Tensors adjoint_tangent(const Tangent&, const Tensor& y_bar_dot, const Kept&, Readout&) const override;
  void second_order(const Tangent&, const Kept&, SecondOrder&) const override;
  OpCost cost(const OpShapes& s) const override {
    const int64_t c = s.inputs[0], h = heads_;
    return {c, c + h, 2 * c + 2 * h + (s.selected[0] ? c : 0), c + h, c, 4 * c};
  }
  std::string name() const override { return kind_ == Kind::layer ? "layer_norm" : "rms_norm"; }

 private:
  int gain() const { return parameters[0]; }
  int bias() const { return parameters[1]; }
  /// t less its mean over channels for a layer norm, t itself for an RMS norm.
  Tensor centred(const Tensor& t) const;
  Tensor gain_of(const Parameters&, at::ScalarType) const;
  Tensor gained(const Parameters&, const Tensor& t) const;
  /// (..., heads C) as (..., heads, C) and back; nothing to do for one head.
  Tensor by_head(const Tensor& t) const;
  Tensor by_row(const Tensor& t) const;
  /// A step of the gain or bias (K, 1, C) beside values by head.
  Tensor step(const Tangent& t, int parameter) const;
  void column_sums(Readout& out, int parameter, const Tensor& by_head) const;
  bool fuses(const Tensor& x_dot) const;
  fused::NormTape fused_tape(const Tangent& t) const;

  Kind kind_;
  double eps_;
  int64_t heads_;
  double gain_offset_;
};

}  // namespace hesper
