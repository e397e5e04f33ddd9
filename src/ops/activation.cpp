#include "ops/activation.h"

#include <cmath>
#include <numbers>

#include "ops/fused.h"
#include "ops/parameters.h"
#include "ops/second_order.h"

namespace hesper {
namespace {
// Activation
enum Tape { kFirst, kSecond };  // phi' and phi'' y_bar (rows, F); the second is undefined for relu
// GatedActivation
enum GatedTape { kA, kU, kAA, kAU };  // phi' u, phi, phi'' u y_bar (undefined for relu), phi' y_bar: (rows, F) each

Tensor times(const Tensor& a, const Tensor& b) { return a.defined() && b.defined() ? a * b : Tensor(); }
// sum + a b, where undefined is zero
Tensor plus_product(const Tensor& sum, const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return sum;
  return sum.defined() ? at::addcmul(sum, a, b) : a * b;
}
// Sum of tangents times weights, undefined where all of them are.
Tensor weighted_sum(const Tangent& t, const std::vector<std::pair<Tensor, Tensor>>& terms, bool factor) {
  for (const auto& [x, w] : terms)
    if (x.defined() && w.defined() && fused::serves_map(x))
      return fused::weighted_sum(terms, fused::as(factor, t.parameters.products()));
  Tensor sum;
  for (const auto& [x, w] : terms) sum = plus_product(sum, x, w);
  return sum;
}
// forward_tangent in a Gram pass with the form added, where the kernels serve it; undefined elsewhere.
Tensor with_form(const Tangent& t, const Tensor& a_dot, const Tensor& u_dot, const Tensor& a, const Tensor& u,
                 const Tensor& aa, const Tensor& au) {
  const Products products = t.parameters.products();
  if (!t.form || !splits(products) || !a_dot.defined() || !fused::serves_map(a_dot)) return {};
  const fused::GateForm g =
      fused::gate_forward_form(a_dot, u_dot, a, u, aa, au, fused::as(t.factor, products), products);
  t.form->add(g.left, g.right);
  return g.y_dot;
}
}  // namespace

Tensor phi_value(Phi phi, const Tensor& x) {
  switch (phi) {
    case Phi::relu:
      return x.relu();
    case Phi::silu:
      return at::silu(x);
    case Phi::gelu:
      return at::gelu(x);
    case Phi::gelu_tanh:
      return at::gelu(x, "tanh");
  }
  return {};
}

PhiSlopes phi_slopes(Phi phi, const Tensor& x) {
  switch (phi) {
    case Phi::relu:
      return {x.gt(0).to(x.scalar_type()), {}};
    case Phi::silu: {  // x s, s = 1 / (1 + e^-x); phi' = s (1 + x (1 - s)), phi'' = s (1 - s) (2 + x (1 - 2 s))
      const Tensor s = x.sigmoid(), rest = 1 - s;
      const Tensor first = (x * rest).add_(1).mul_(s);
      return {first, (s * -2).add_(1).mul_(x).add_(2).mul_(rest.mul_(s))};
    }
    case Phi::gelu: {  // x Phi(x); phi' = Phi + x f, phi'' = f (2 - x^2), f the normal density
      const Tensor cdf = (x * (std::numbers::sqrt2 / 2)).erf_().add_(1).mul_(0.5), square = x.square();
      const Tensor density = (square * -0.5).exp_().mul_(1 / std::sqrt(2 * std::numbers::pi));
      return {cdf.add_(x * density), square.neg_().add_(2).mul_(density)};
    }
    case Phi::gelu_tanh: {  // x (1 + t) / 2, t = tanh(w), w = k (x + a x^3), t' = (1 - t^2) w', w'' = 6 a k x
      const double k = std::sqrt(2 / std::numbers::pi), a = 0.044715;
      const Tensor square = x.square(), t = (square * a).add_(1).mul_(x).mul_(k).tanh_();
      const Tensor w1 = square.mul_(3 * a).add_(1).mul_(k), rest = t.square().neg_().add_(1), t1 = rest * w1;
      const Tensor t2 = w1.square_().mul_(t).mul_(-2).add_(x, 6 * a * k).mul_(rest);
      return {(x * t1).add_(t).add_(1).mul_(0.5), t2.mul_(x).mul_(0.5).add_(t1)};
    }
  }
  return {};
}

Tensor Activation::forward(const Primal& p, const Tensors& x, Kept& kept) const {
  if (p.keep) kept = {x[0]};
  return phi_value(phi_, x[0]);
}

Tensors Activation::adjoint(const Primal&, const Tensor& y_bar, unsigned, Kept& kept, Readout&) const {
  const PhiSlopes phi = phi_slopes(phi_, kept[0]);
  if (phi.second.defined()) phi.second.mul_(y_bar);
  kept = {phi.first, phi.second};
  return {phi.first * y_bar};
}

Tensor Activation::forward_tangent(const Tangent& t, const Tensors& x_dot, Kept& kept) const {
  if (t.tape[kSecond].defined()) {
    if (const Tensor y_dot = with_form(t, x_dot[0], {}, t.tape[kFirst], {}, t.tape[kSecond], {}); y_dot.defined())
      return y_dot;
    kept = {x_dot[0]};
  }
  return weighted_sum(t, {{x_dot[0], t.tape[kFirst]}}, t.factor);
}

Tensors Activation::adjoint_tangent(const Tangent& t, const Tensor& y_bar_dot, const Kept& kept, Readout&) const {
  return {weighted_sum(t, {{y_bar_dot, t.tape[kFirst]}, {kept.empty() ? Tensor() : kept[0], t.tape[kSecond]}},
                       (t.factors & 1u) != 0)};
}

void Activation::second_order(const Tangent& t, const Kept& kept, SecondOrder& form) const {
  if (!kept.empty()) form.add(kept[0], times(kept[0], t.tape[kSecond]));
}

Tensor GatedActivation::forward(const Primal& p, const Tensors& x, Kept& kept) const {
  if (p.keep) kept = {x[0], x[1]};
  return phi_value(phi_, x[0]) * x[1];
}

Tensors GatedActivation::adjoint(const Primal&, const Tensor& y_bar, unsigned, Kept& kept, Readout&) const {
  const PhiSlopes phi = phi_slopes(phi_, kept[0]);
  const Tensor u = kept[1], au = phi.first * y_bar;
  if (phi.second.defined()) phi.second.mul_(u * y_bar);
  kept = {phi.first.mul_(u), phi_value(phi_, kept[0]), phi.second, au};
  return {kept[kA] * y_bar, kept[kU] * y_bar};
}

Tensor GatedActivation::forward_tangent(const Tangent& t, const Tensors& x_dot, Kept& kept) const {
  if (x_dot[1].defined())
    if (const Tensor y_dot = with_form(t, x_dot[0], x_dot[1], t.tape[kA], t.tape[kU], t.tape[kAA], t.tape[kAU]);
        y_dot.defined())
      return y_dot;
  kept = {x_dot[0], x_dot[1]};
  return weighted_sum(t, {{x_dot[0], t.tape[kA]}, {x_dot[1], t.tape[kU]}}, t.factor);
}

Tensors GatedActivation::adjoint_tangent(const Tangent& t, const Tensor& y_bar_dot, const Kept& kept, Readout&) const {
  if (y_bar_dot.defined() && fused::serves_map(y_bar_dot))
    return fused::gate_adjoint(y_bar_dot, kept.empty() ? Tensor() : kept[0], kept.empty() ? Tensor() : kept[1],
                               t.tape[kA], t.tape[kU], t.tape[kAA], t.tape[kAU],
                               fused::as(t.factors == 3u, t.parameters.products()));
  Tensor a = times(y_bar_dot, t.tape[kA]), u = times(y_bar_dot, t.tape[kU]);
  if (!kept.empty()) {
    a = plus_product(plus_product(a, kept[0], t.tape[kAA]), kept[1], t.tape[kAU]);
    u = plus_product(u, kept[0], t.tape[kAU]);
  }
  return {a, u};
}

void GatedActivation::second_order(const Tangent& t, const Kept& kept, SecondOrder& form) const {
  if (kept.empty()) return;
  // phi'' u y_bar a_i a_j + phi' y_bar (a_i u_j + u_i a_j) = a_i (aa a_j + 2 au u_j), symmetrised by the sum
  Tensor b = times(kept[1], t.tape[kAU]);
  if (b.defined()) b.mul_(2);
  form.add(kept[0], plus_product(b, kept[0], t.tape[kAA]));
}

}  // namespace hesper
