#include "ops/linear.h"

#include "ops/directions.h"
#include "ops/parameters.h"
#include "ops/product.h"
#include "ops/second_order.h"
#include "ops/tier_products.h"

namespace hesper {
namespace {
enum Tape { kX, kYBar };  // (rows, in), (rows, out); only where the weight is selected
enum Tangents { kXDot };  // (K, rows, in); likewise
}  // namespace

Tensor Linear::forward(const Primal& p, const Tensors& x, Kept& kept) const {
  const Tensor w = maps().matrix(p.parameters, x[0].scalar_type());
  if (p.keep && p.selection.has(weight())) kept.push_back(x[0]);
  Tensor y = product(x[0], w.t());
  return bias() < 0 ? y : y.add_(p.parameters.get(bias(), x[0].scalar_type()));
}

Tensor Linear::plain(const Primal& p, const Tensors& x) const {
  const Tensor w = maps().matrix(p.parameters, x[0].scalar_type());
  if (bias() < 0) return x[0].mm(w.t());
  return at::addmm(p.parameters.get(bias(), x[0].scalar_type()), x[0], w.t());
}

Tensors Linear::adjoint(const Primal& p, const Tensor& y_bar, unsigned wanted, Kept& kept, Readout& gradient) const {
  if (p.selection.has(weight())) {
    maps().outer(gradient, p.tokens.per_sequence(y_bar), p.tokens.per_sequence(kept[kX]));
    kept.push_back(y_bar);
  }
  gradient.column_sums(bias(), p.tokens.per_sequence(y_bar));
  return {wanted & 1u ? product(y_bar, maps().matrix(p.parameters, y_bar.scalar_type())) : Tensor()};
}

Tensor Linear::forward_tangent(const Tangent& t, const Tensors& x_dot, Kept& kept) const {
  const Tensor w = maps().factor(t.parameters);
  Tensor y_dot = x_dot[0].defined() ? times(x_dot[0], w.t(), t.parameters.products()) : Tensor();
  if (t.directions.touches(weight())) maps().add_step(t, t.tape[kX], y_dot);
  if (const Tensor b_dot = t.directions.vector(bias(), t.alive); b_dot.defined())
    y_dot = y_dot.defined() ? y_dot.add_(b_dot) : b_dot.expand({-1, t.tokens.rows(), -1}).contiguous();
  if (!t.tape.empty()) kept = {x_dot[0]};
  return y_dot;
}

Tensors Linear::adjoint_tangent(const Tangent& t, const Tensor& y_bar_dot, const Kept& kept, Readout& out) const {
  if (out.wants(weight())) {
    maps().outer(out, y_bar_dot, t.tape[kX]);
    if (!kept.empty()) maps().outer(out, t.tape[kYBar], kept[kXDot]);
  }
  out.column_sums(bias(), y_bar_dot);
  if (!t.wants(0)) return {Tensor()};
  const Tensor w = maps().factor(t.parameters);
  Tensor x_bar_dot;
  if (y_bar_dot.defined()) {
    x_bar_dot = t.take(inputs[0]);
    if (unshared(x_bar_dot) && x_bar_dot.is_contiguous())
      add_times(x_bar_dot, y_bar_dot, w, t.parameters.products());
    else
      x_bar_dot = plus(x_bar_dot, times(y_bar_dot, w, t.parameters.products()));
  }
  if (t.directions.touches(weight())) maps().add_step_transposed(t, t.tape[kYBar], x_bar_dot);
  return {x_bar_dot};
}

void Linear::second_order(const Tangent& t, const Kept& kept, SecondOrder& form) const {
  if (form.reads().wants(weight()) && !kept.empty()) maps().outer(form.reads(), t.tape[kYBar], kept[kXDot]);
}

}  // namespace hesper
