#include "ops/norm.h"

#include "ops/directions.h"
#include "ops/fused.h"
#include "ops/parameters.h"
#include "ops/second_order.h"

namespace hesper {
namespace {
// By head where there are several: (rows, H, C) for (rows, C), (rows, H, 1) for (rows, 1).
enum Tape { kXh, kInv, kU, kM, kYBar };  // (rows, C), 1/r (rows, 1), (rows, C), (rows, 1), (rows, C) if g is selected
// (K, rows, C), a/r (K, rows, 1); (K, rows, H C) and (K, rows, H) of heads; both undefined where x_dot is zero
enum Tangents { kXhDot, kS };

Tensor row_mean(const Tensor& t) { return t.mean(-1, true); }
}  // namespace

Tensor Norm::centred(const Tensor& t) const { return kind_ == Kind::layer ? t - row_mean(t) : t; }

Tensor Norm::by_head(const Tensor& t) const {
  return heads_ == 1 || !t.defined() ? t : t.unflatten(-1, {heads_, t.size(-1) / heads_});
}
Tensor Norm::by_row(const Tensor& t) const { return heads_ == 1 || !t.defined() ? t : t.flatten(-2); }

Tensor Norm::gain_of(const Parameters& w, at::ScalarType dtype) const {
  const Tensor g = w.get(gain(), dtype);
  return gain_offset_ == 0 ? g : g + gain_offset_;
}
Tensor Norm::gained(const Parameters& w, const Tensor& t) const {
  return gain() < 0 ? t : t * gain_of(w, t.scalar_type());
}

Tensor Norm::step(const Tangent& t, int parameter) const {
  const Tensor dot = t.directions.vector(parameter, t.alive);
  return heads_ == 1 || !dot.defined() ? dot : dot.unsqueeze(2);
}
void Norm::column_sums(Readout& out, int parameter, const Tensor& a) const {
  if (a.defined() && out.wants(parameter)) out.column_sums(parameter, heads_ == 1 ? a : a.sum(-2));
}

bool Norm::fuses(const Tensor& x_dot) const { return heads_ == 1 && x_dot.defined() && fused::serves_norm(x_dot); }

fused::NormTape Norm::fused_tape(const Tangent& t) const {
  return {t.tape[kXh],
          t.tape[kInv],
          t.tape[kU],
          t.tape[kM],
          gain() < 0 ? Tensor() : gain_of(t.parameters, t.parameters.working()),
          kind_ == Kind::layer};
}

Tensor Norm::forward(const Primal& p, const Tensors& x, Kept& kept) const {
  const Tensor c = centred(by_head(x[0]));
  const Tensor inv = (row_mean(c * c) + eps_).rsqrt();
  const Tensor xh = c * inv;
  if (p.keep) kept = {xh, inv};
  const Tensor y = gained(p.parameters, xh);
  return by_row(bias() < 0 ? y : y + p.parameters.get(bias(), y.scalar_type()));
}

Tensors Norm::adjoint(const Primal& p, const Tensor& y_bar, unsigned wanted, Kept& kept, Readout& gradient) const {
  const Tensor bar = by_head(y_bar), u = gained(p.parameters, bar), m = row_mean(kept[kXh] * u);
  const bool selected = gain() >= 0 && p.selection.has(gain());
  const auto per_sequence = [&](const Tensor& t) { return t.unflatten(0, {p.tokens.sequences, p.tokens.length}); };
  if (selected) column_sums(gradient, gain(), per_sequence(bar * kept[kXh]));
  column_sums(gradient, bias(), per_sequence(bar));
  kept.insert(kept.end(), {u, m});
  if (selected) kept.push_back(bar);
  return {wanted & 1u ? by_row((centred(u) - kept[kXh] * m) * kept[kInv]) : Tensor()};
}

Tensor Norm::forward_tangent(const Tangent& t, const Tensors& x_dot, Kept& kept) const {
  Tensor y_dot;
  const Products products = t.parameters.products();
  if (fuses(x_dot[0]) && t.form && splits(products) && !t.form->reads().wants(gain())) {
    const fused::NormForm n =
        fused::norm_forward_form(fused_tape(t), eps_, x_dot[0], fused::as(t.factor, products), products);
    t.form->add(n.left, n.right, -1);
    t.form->add(n.s, n.e, -1);
    y_dot = n.y_dot;
  } else if (fuses(x_dot[0])) {
    const fused::NormTangent n = fused::norm_forward(fused_tape(t), x_dot[0], fused::as(t.factor, products));
    kept = {n.xh_dot, n.s};
    y_dot = n.y_dot;
  } else if (x_dot[0].defined()) {
    const Tensor c_dot = centred(by_head(x_dot[0])), a = row_mean(t.tape[kXh] * c_dot);
    const Tensor xh_dot = at::addcmul(c_dot, t.tape[kXh], a, -1).mul_(t.tape[kInv]);
    kept = {by_row(xh_dot), by_row(a * t.tape[kInv])};
    y_dot = gained(t.parameters, xh_dot);
  }
  if (const Tensor g_dot = step(t, gain()); g_dot.defined()) y_dot = plus(y_dot, g_dot * t.tape[kXh]);
  if (const Tensor b_dot = step(t, bias()); b_dot.defined())
    y_dot = y_dot.defined() ? y_dot + b_dot : b_dot + at::zeros_like(t.tape[kXh]);
  return by_row(y_dot);
}

Tensors Norm::adjoint_tangent(const Tangent& t, const Tensor& y_bar_dot, const Kept& kept, Readout& out) const {
  const Tensor &xh = t.tape[kXh], &inv = t.tape[kInv], &u = t.tape[kU], &m = t.tape[kM];
  const Tensor bar_dot = by_head(y_bar_dot), xh_dot = kept.empty() ? Tensor() : by_head(kept[kXhDot]);
  if (out.wants(gain())) {
    if (bar_dot.defined()) column_sums(out, gain(), bar_dot * xh);
    if (xh_dot.defined()) column_sums(out, gain(), t.tape[kYBar] * xh_dot);
  }
  column_sums(out, bias(), bar_dot);
  if (!t.wants(0)) return {Tensor()};
  if (fuses(y_bar_dot.defined() ? y_bar_dot : xh_dot) && !t.directions.touches(gain()))
    return {
        fused::norm_adjoint(fused_tape(t), y_bar_dot, xh_dot, kept.empty() ? Tensor() : kept[kS], t.take(inputs[0]))};
  Tensor u_dot = bar_dot.defined() ? gained(t.parameters, bar_dot) : Tensor();
  if (const Tensor g_dot = step(t, gain()); g_dot.defined()) u_dot = plus(u_dot, g_dot * t.tape[kYBar]);
  Tensor x_bar_dot, along;  // along = row_mean(xh_dot u + xh u_dot)
  if (u_dot.defined()) {
    x_bar_dot = centred(u_dot);
    if (y_bar_dot.defined() && x_bar_dot.is_alias_of(y_bar_dot))
      x_bar_dot = x_bar_dot.clone();  // no gain, no mean: changed in place below
    along = row_mean(xh * u_dot);
  }
  if (xh_dot.defined()) {
    x_bar_dot = x_bar_dot.defined() ? at::addcmul(x_bar_dot, xh_dot, m, -1) : -(xh_dot * m);
    along = plus(along, row_mean(xh_dot * u));
  }
  if (!x_bar_dot.defined()) return {Tensor()};
  x_bar_dot.addcmul_(xh, along, -1);
  if (xh_dot.defined()) {
    const Tensor r_x_bar = centred(u) - xh * m;  // r x_bar (rows, C)
    const Tensor s = heads_ == 1 ? kept[kS] : kept[kS].unsqueeze(-1);
    x_bar_dot.addcmul_(s, r_x_bar, -1);
  }
  return {by_row(x_bar_dot.mul_(inv))};
}

void Norm::second_order(const Tangent& t, const Kept& kept, SecondOrder& form) const {
  if (kept.empty()) return;
  const Tensor &inv = t.tape[kInv], &m = t.tape[kM], xh_dot = by_head(kept[kXhDot]);
  const Tensor s = heads_ == 1 ? kept[kS] : kept[kS].unsqueeze(-1);
  form.add(xh_dot, m * xh_dot, -1);  // C m row_mean(xh_dot_i xh_dot_j) = m xh_dot_i . xh_dot_j
  // -s_i (2 u.xh_dot_j + C m k s_j), symmetrised by the sum
  const Tensor width_mk = m * (static_cast<double>(t.tape[kXh].size(-1)) * eps_) * inv.square();
  form.add(s, 2 * (t.tape[kU] * xh_dot).sum(-1, true) + width_mk * s, -1);
  if (form.reads().wants(gain())) column_sums(form.reads(), gain(), t.tape[kYBar] * xh_dot);
}

}  // namespace hesper
