#include "ops/wiring.h"

#include "ops/directions.h"
#include "ops/fused.h"
#include "ops/parameters.h"
#include "ops/readout.h"

namespace hesper {

Scale::Scale(int x, const std::vector<double>& factors)
    : Op({x}, {}), factors_(at::tensor(at::ArrayRef<double>(factors), at::kDouble)) {}

void Scale::place(at::Device where) {
  device = where;
  factors_ = factors_.to(where);
}

Tensor Scale::scaled(const Tensor& x, const Tokens& tokens) const {
  if (!x.defined()) return x;
  const Tensor a = factors_.size(0) == 1 ? factors_ : factors_.narrow(0, tokens.offset, tokens.length);
  const Tensor column = a.to(x.scalar_type()).unsqueeze(1);
  return x * (a.size(0) == 1 || tokens.sequences == 1 ? column : column.repeat({tokens.sequences, 1}));
}

Tensor Channels::picked(const Tensor& x) const {
  if (!x.defined()) return x;
  return x.unflatten(-1, {-1, width_}).narrow(-1, begin_, end_ - begin_).flatten(-2).contiguous();
}
Tensor Channels::placed(const Tensor& y) const {
  if (!y.defined()) return y;
  return at::constant_pad_nd(y.unflatten(-1, {-1, end_ - begin_}), {begin_, width_ - end_}).flatten(-2);
}

Rotary::Rotary(int x, const std::vector<double>& inverse_frequencies, int64_t tokens, int64_t head_dim, Pairs pairs,
               double factor)
    : Op({x}, {}), pairs_(pairs) {
  const Tensor frequency = at::tensor(at::ArrayRef<double>(inverse_frequencies), at::kDouble);
  const Tensor angle = at::arange(tokens, at::kDouble).unsqueeze(1) * frequency;
  cos_ = angle.cos() * factor;
  sin_ = angle.sin() * factor;
  cos_low_ = cos_.to(at::kFloat);
  sin_low_ = sin_.to(at::kFloat);
  head_dim_ = head_dim > 0 ? head_dim : 2 * cos_.size(1);
}

void Rotary::place(at::Device where) {
  device = where;
  for (Tensor* table : {&cos_, &sin_, &cos_low_, &sin_low_}) *table = table->to(where);
}

// cos or sin of the tokens' angles: (rows, F)
Tensor Rotary::angles(const Tensor& wide, const Tensor& low, const Tokens& tokens, at::ScalarType dtype) const {
  const Tensor t = (dtype == at::kDouble ? wide : low).narrow(0, tokens.offset, tokens.length);
  return tokens.sequences == 1 ? t : t.repeat({tokens.sequences, 1});
}

// x (..., rows, heads * D)
Tensor Rotary::turn(const Tensor& x, const Tokens& tokens, bool back) const {
  const Tensor c = angles(cos_, cos_low_, tokens, x.scalar_type()).unsqueeze(1);
  Tensor s = angles(sin_, sin_low_, tokens, x.scalar_type()).unsqueeze(1);
  if (back) s = -s;
  const int64_t turned = 2 * cos_.size(1), axis = pairs_ == Pairs::halves ? -2 : -1;
  const Tensor heads = x.unflatten(-1, {-1, head_dim_});  // (..., rows, heads, D)
  const std::vector<int64_t> shape = axis == -2 ? std::vector<int64_t>{2, -1} : std::vector<int64_t>{-1, 2};
  const Tensor pairs = heads.narrow(-1, 0, turned).unflatten(-1, shape);
  const Tensor a = pairs.select(axis, 0), b = pairs.select(axis, 1);  // (..., rows, heads, F)
  const Tensor y = at::stack({a * c - b * s, b * c + a * s}, axis).flatten(-2);
  if (turned == head_dim_) return y.flatten(-2);
  return at::cat({y, heads.narrow(-1, turned, head_dim_ - turned)}, -1).flatten(-2);
}

Tensor Rotary::turn_tangent(const Tangent& t, const Tensor& x, bool back) const {
  if (!x.defined()) return {};
  const bool fusable = pairs_ == Pairs::halves && head_dim_ == 2 * cos_.size(1) && cos_.size(1) % 4 == 0;
  if (!fused::serves_map(x) || !fusable) return turn(x, t.tokens, back);
  return fused::rotary(x, angles(cos_, cos_low_, t.tokens, at::kFloat), angles(sin_, sin_low_, t.tokens, at::kFloat),
                       back, fused::as(back && t.factors != 0, t.parameters.products()));
}

Tensor Rotary::forward(const Primal& p, const Tensors& x, Kept&) const { return turn(x[0], p.tokens, false); }
Tensors Rotary::adjoint(const Primal& p, const Tensor& y_bar, unsigned, Kept&, Readout&) const {
  return {turn(y_bar, p.tokens, true)};
}
Tensor Rotary::forward_tangent(const Tangent& t, const Tensors& x_dot, Kept&) const {
  return turn_tangent(t, x_dot[0], false);
}
Tensors Rotary::adjoint_tangent(const Tangent& t, const Tensor& y_bar_dot, const Kept&, Readout&) const {
  return {turn_tangent(t, y_bar_dot, true)};
}

Tensor Embedding::rows(const Tokens& tokens) const {
  if (by_ == By::token) return tokens.ids;
  return at::arange(offset_ + tokens.offset, offset_ + tokens.offset + tokens.length, tokens.ids.options())
      .repeat({tokens.sequences});
}

Tensor Embedding::forward(const Primal& p, const Tensors&, Kept&) const {
  // Only the rows in use are raised to the precision of the pass.
  const Tensor& table = p.parameters.stored(parameters[0]);
  return table.index_select(0, rows(p.tokens).to(table.device())).to(device, p.precision);
}

Tensors Embedding::adjoint(const Primal& p, const Tensor& y_bar, unsigned, Kept&, Readout& gradient) const {
  if (gradient.wants(parameters[0]))
    gradient.table_rows(parameters[0], rows(p.tokens).view({p.tokens.sequences, -1}),
                        y_bar.view({p.tokens.sequences, p.tokens.length, -1}));
  return {};
}

Tensor Embedding::forward_tangent(const Tangent& t, const Tensors&, Kept&) const {
  return t.directions.lookup(parameters[0], rows(t.tokens), t.alive);
}

Tensors Embedding::adjoint_tangent(const Tangent& t, const Tensor& y_bar_dot, const Kept&, Readout& out) const {
  out.table_rows(parameters[0], rows(t.tokens), y_bar_dot);
  return {};
}

}  // namespace hesper
