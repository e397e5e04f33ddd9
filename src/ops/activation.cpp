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

PhiValues phi_values(Phi phi, const Tensor& x) {
  switch (phi) {
    case Phi::relu: {
      const Tensor on = x.gt(0).to(x.scalar_type());
      return {x * on, on, {}};
    }
    case Phi::silu: {
      const Tensor s = x.sigmoid(), xs = x * (1 - s);  // phi' = s(1 + x(1-s)), phi'' = s(1-s)(2 + x(1-2s))
      return {x * s, s * (1 + xs), s * (1 - s) * (2 + xs - x * s)};
    }
    case Phi::gelu: {  // x Phi(x); phi' = Phi + x f, phi'' = f (2 - x^2), f the normal density
      const Tensor cdf = 0.5 * (1 + at::erf(x * std::numbers::sqrt2 / 2));
      const Tensor density = (x.square() * -0.5).exp() * (1 / std::sqrt(2 * std::numbers::pi));
      return {x * cdf, cdf + x * density, density * (2 - x.square())};
    }
    case Phi::gelu_tanh: {  // 0.5 x (1 + t), t = tanh(w), w = k (x + a x^3)
      const double k = std::sqrt(2 / std::numbers::pi), a = 0.044715;
      const Tensor t = (k * (x + a * x.pow(3))).tanh(), w1 = k * (1 + 3 * a * x.square()), w2 = 6 * a * k * x;
      const Tensor t1 = (1 - t.square()) * w1, t2 = (1 - t.square()) * (w2 - 2 * t * w1.square());
      return {0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * t1, t1 + 0.5 * x * t2};
    }
  }
  return {};
}

Tensor Activation::forward(const Primal& p, const Tensors& x, Kept& kept) const {
  if (p.keep) kept = {x[0]};
  return phi_values(phi_, x[0]).value;
}

Tensors Activation::adjoint(const Primal&, const Tensor& y_bar, unsigned, Kept& kept, Readout&) const {
  const PhiValues v = phi_values(phi_, kept[0]);
  kept = {v.first, times(v.second, y_bar)};
  return {v.first * y_bar};
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
  return phi_values(phi_, x[0]).value * x[1];
}

Tensors GatedActivation::adjoint(const Primal&, const Tensor& y_bar, unsigned, Kept& kept, Readout&) const {
  const PhiValues v = phi_values(phi_, kept[0]);
  const Tensor u = kept[1];
  kept = {v.first * u, v.value, times(v.second, u * y_bar), v.first * y_bar};
  return {kept[kA] * y_bar, v.value * y_bar};
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
