#include "ops/wiring.h"

#include "ops/directions.h"
#include "ops/fused.h"
#include "ops/parameters.h"
#include "ops/readout.h"

namespace hesper {

Rotary::Rotary(int x, const std::vector<double>& inverse_frequencies, int64_t tokens, at::Device device) : Op({x}, {}) {
  const Tensor frequency = at::tensor(at::ArrayRef<double>(inverse_frequencies), at::kDouble);
  const Tensor angle = at::arange(tokens, at::kDouble).unsqueeze(1) * frequency;
  cos_ = angle.cos().to(device);
  sin_ = angle.sin().to(device);
  cos_low_ = cos_.to(at::kFloat);
  sin_low_ = sin_.to(at::kFloat);
}

// cos or sin of the tokens' angles: (rows, D/2)
Tensor Rotary::angles(const Tensor& wide, const Tensor& low, const Tokens& tokens, at::ScalarType dtype) const {
  const Tensor t = (dtype == at::kDouble ? wide : low).narrow(0, tokens.offset, tokens.length);
  return tokens.sequences == 1 ? t : t.repeat({tokens.sequences, 1});
}

// x (..., rows, heads * D)
Tensor Rotary::turn(const Tensor& x, const Tokens& tokens, bool back) const {
  const Tensor c = angles(cos_, cos_low_, tokens, x.scalar_type()).unsqueeze(1);
  Tensor s = angles(sin_, sin_low_, tokens, x.scalar_type()).unsqueeze(1);
  if (back) s = -s;
  const Tensor heads = x.unflatten(-1, {-1, 2, cos_.size(1)});  // (..., rows, heads, 2, D/2)
  const Tensor a = heads.select(-2, 0), b = heads.select(-2, 1);
  return at::stack({a * c - b * s, b * c + a * s}, -2).flatten(-3);
}

Tensor Rotary::turn_tangent(const Tangent& t, const Tensor& x, bool back) const {
  if (!x.defined()) return {};
  if (!fused::serves_map(x) || cos_.size(1) % 4 != 0) return turn(x, t.tokens, back);
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
  return table.index_select(0, rows(p.tokens).to(table.device())).to(p.parameters.device(), p.precision);
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
