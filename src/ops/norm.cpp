#include "ops/norm.h"

#include "ops/directions.h"
#include "ops/fused.h"
#include "ops/parameters.h"
#include "ops/second_order.h"

namespace hesper {
namespace {
enum Tape { kXh, kInv, kU, kM, kYBar };  // (rows, C), 1/r (rows, 1), (rows, C), (rows, 1), (rows, C) if g is selected
enum Tangents { kXhDot, kS };            // (K, rows, C), a/r (K, rows, 1); both undefined where x_dot is zero

Tensor row_mean(const Tensor& t) { return t.mean(-1, true); }
}  // namespace

Tensor Norm::centred(const Tensor& t) const { return kind_ == Kind::layer ? t - row_mean(t) : t; }

Tensor Norm::gained(const Parameters& w, const Tensor& t) const {
  return gain() < 0 ? t : t * w.get(gain(), t.scalar_type());
}

fused::NormTape Norm::fused_tape(const Tangent& t) const {
  return {t.tape[kXh],
          t.tape[kInv],
          t.tape[kU],
          t.tape[kM],
          gain() < 0 ? Tensor() : t.parameters.get(gain(), t.parameters.working()),
          kind_ == Kind::layer};
}

Tensor Norm::forward(const Primal& p, const Tensors& x, Kept& kept) const {
  const Tensor c = centred(x[0]);
  const Tensor inv = (row_mean(c * c) + eps_).rsqrt();
  const Tensor xh = c * inv;
  if (p.keep) kept = {xh, inv};
  const Tensor y = gained(p.parameters, xh);
  return bias() < 0 ? y : y + p.parameters.get(bias(), y.scalar_type());
}

Tensors Norm::adjoint(const Primal& p, const Tensor& y_bar, unsigned wanted, Kept& kept, Readout& gradient) const {
  const Tensor u = gained(p.parameters, y_bar), m = row_mean(kept[kXh] * u);
  const bool selected = gain() >= 0 && p.selection.has(gain());
  if (selected) gradient.column_sums(gain(), p.tokens.per_sequence(y_bar * kept[kXh]));
  gradient.column_sums(bias(), p.tokens.per_sequence(y_bar));
  kept.insert(kept.end(), {u, m});
  if (selected) kept.push_back(y_bar);
  return {wanted & 1u ? (centred(u) - kept[kXh] * m) * kept[kInv] : Tensor()};
}

Tensor Norm::forward_tangent(const Tangent& t, const Tensors& x_dot, Kept& kept) const {
  Tensor y_dot;
  const Products products = t.parameters.products();
  if (x_dot[0].defined() && fused::serves_norm(x_dot[0]) && t.form && splits(products) &&
      !t.form->reads().wants(gain())) {
    const fused::NormForm n =
        fused::norm_forward_form(fused_tape(t), eps_, x_dot[0], fused::as(t.factor, products), products);
    t.form->add(n.left, n.right, -1);
    t.form->add(n.s, n.e, -1);
    y_dot = n.y_dot;
  } else if (x_dot[0].defined() && fused::serves_norm(x_dot[0])) {
    const fused::NormTangent n = fused::norm_forward(fused_tape(t), x_dot[0], fused::as(t.factor, products));
    kept = {n.xh_dot, n.s};
    y_dot = n.y_dot;
  } else if (x_dot[0].defined()) {
    const Tensor c_dot = centred(x_dot[0]), a = row_mean(t.tape[kXh] * c_dot);
    const Tensor xh_dot = at::addcmul(c_dot, t.tape[kXh], a, -1).mul_(t.tape[kInv]);
    kept = {xh_dot, a * t.tape[kInv]};
    y_dot = gained(t.parameters, xh_dot);
  }
  if (const Tensor g_dot = t.directions.vector(gain(), t.alive); g_dot.defined())
    y_dot = plus(y_dot, g_dot * t.tape[kXh]);
  if (const Tensor b_dot = t.directions.vector(bias(), t.alive); b_dot.defined())
    y_dot = y_dot.defined() ? y_dot + b_dot : b_dot.expand({-1, t.tokens.rows(), -1}).contiguous();
  return y_dot;
}

Tensors Norm::adjoint_tangent(const Tangent& t, const Tensor& y_bar_dot, const Kept& kept, Readout& out) const {
  const Tensor &xh = t.tape[kXh], &inv = t.tape[kInv], &u = t.tape[kU], &m = t.tape[kM];
  if (out.wants(gain())) {
    if (y_bar_dot.defined()) out.column_sums(gain(), y_bar_dot * xh);
    if (!kept.empty()) out.column_sums(gain(), t.tape[kYBar] * kept[kXhDot]);
  }
  out.column_sums(bias(), y_bar_dot);
  if (!t.wants(0)) return {Tensor()};
  const Tensor& any = y_bar_dot.defined() || kept.empty() ? y_bar_dot : kept[kXhDot];
  if (any.defined() && fused::serves_norm(any) && !t.directions.touches(gain()))
    return {fused::norm_adjoint(fused_tape(t), y_bar_dot, kept.empty() ? Tensor() : kept[kXhDot],
                                kept.empty() ? Tensor() : kept[kS], t.take(inputs[0]))};
  Tensor u_dot = y_bar_dot.defined() ? gained(t.parameters, y_bar_dot) : Tensor();
  if (const Tensor g_dot = t.directions.vector(gain(), t.alive); g_dot.defined())
    u_dot = plus(u_dot, g_dot * t.tape[kYBar]);
  Tensor x_bar_dot, along;  // along = row_mean(xh_dot u + xh u_dot)
  if (u_dot.defined()) {
    x_bar_dot = centred(u_dot);
    if (x_bar_dot.is_same(y_bar_dot)) x_bar_dot = x_bar_dot.clone();  // no gain, no mean: changed in place below
    along = row_mean(xh * u_dot);
  }
  if (!kept.empty()) {
    const Tensor& xh_dot = kept[kXhDot];
    x_bar_dot = x_bar_dot.defined() ? at::addcmul(x_bar_dot, xh_dot, m, -1) : -(xh_dot * m);
    along = plus(along, row_mean(xh_dot * u));
  }
  if (!x_bar_dot.defined()) return {Tensor()};
  x_bar_dot.addcmul_(xh, along, -1);
  if (!kept.empty()) {
    const Tensor r_x_bar = centred(u) - xh * m;  // r x_bar (rows, C)
    x_bar_dot.addcmul_(kept[kS], r_x_bar, -1);
  }
  return {x_bar_dot.mul_(inv)};
}

void Norm::second_order(const Tangent& t, const Kept& kept, SecondOrder& form) const {
  if (kept.empty()) return;
  const Tensor &xh_dot = kept[kXhDot], &s = kept[kS], &inv = t.tape[kInv], &m = t.tape[kM];
  form.add(xh_dot, m * xh_dot, -1);  // C m row_mean(xh_dot_i xh_dot_j) = m xh_dot_i . xh_dot_j
  // -s_i (2 u.xh_dot_j + C m k s_j), symmetrised by the sum
  const Tensor width_mk = m * (static_cast<double>(t.tape[kXh].size(-1)) * eps_) * inv.square();
  form.add(s, 2 * (t.tape[kU] * xh_dot).sum(-1, true) + width_mk * s, -1);
  if (form.reads().wants(gain())) form.reads().column_sums(gain(), t.tape[kYBar] * xh_dot);
}

}  // namespace hesper
