#include "ops/experts.h"

#include <algorithm>

#include "ops/directions.h"
#include "ops/linear_maps.h"
#include "ops/parameters.h"
#include "ops/product.h"
#include "ops/readout.h"
#include "ops/second_order.h"
#include "ops/tier_products.h"

namespace hesper {
namespace {
// ExpertInput. Experts are kept as numbers of the pass's precision: a tape holds one type.
enum InputTape { kH, kExpert, kS, kS1, kBend, kYBar };  // (rows, C), (rows, 1) x 4, (rows, C); bend = s'' (h.y_bar)
enum InputTangents { kHDot, kLDot };                    // (K, rows, C), (K, rows, 1)
// ExpertLinear
enum LinearTape { kE, kX, kBar };  // (rows, 1); (rows, in) and (rows, out) where a weight is selected
enum LinearTangents { kXDot };     // (K, rows, in); likewise

Tensor expert_of(const Tensor& logits, int64_t slot) {  // (rows, 1) int64
  return std::get<1>(logits.topk(slot + 1, -1)).narrow(-1, slot, 1);
}
Tensor row_dot(const Tensor& a, const Tensor& b) { return (a * b).sum(-1, true); }
}  // namespace

Tensor ExpertInput::chosen(const Tensor& logits) const { return expert_of(logits, slot_); }

Tensor ExpertInput::margin(const Tensor& logits) const {
  if (slot_ + 1 == experts_) return {};
  const Tensor top = std::get<0>(logits.topk(slot_ + 2, -1));
  return top.select(-1, slot_) - top.select(-1, slot_ + 1);
}

Tensor ExpertInput::plain(const Primal&, const Tensors& x) const {
  return x[0] * x[1].gather(1, expert_of(x[1], slot_)).sigmoid();
}

Tensor ExpertInput::forward(const Primal& p, const Tensors& x, Kept& kept) const {
  const Tensor expert = expert_of(x[1], slot_), s = x[1].gather(1, expert).sigmoid();
  if (p.keep) kept = {x[0], expert.to(s.scalar_type()), s};
  return x[0] * s;
}

Tensors ExpertInput::adjoint(const Primal&, const Tensor& y_bar, unsigned, Kept& kept, Readout&) const {
  const Tensor h = kept[kH], expert = kept[kExpert], s = kept[kS], s1 = s * (1 - s), along = row_dot(h, y_bar);
  const Tensor l_bar = at::zeros({h.size(0), experts_}, h.options()).scatter_(1, expert.to(at::kLong), s1 * along);
  kept = {h, expert, s, s1, s1 * (1 - 2 * s) * along, y_bar};
  return {s * y_bar, l_bar};
}

Tensor ExpertInput::forward_tangent(const Tangent& t, const Tensors& x_dot, Kept& kept) const {
  Tensor l_dot, y_dot;
  if (x_dot[1].defined()) {
    const Tensor expert = t.tape[kExpert].to(at::kLong).unsqueeze(0).expand({x_dot[1].size(0), -1, -1});
    l_dot = x_dot[1].gather(2, expert);
    y_dot = (l_dot * t.tape[kS1]) * t.tape[kH];
  }
  if (x_dot[0].defined()) y_dot = plus(y_dot, x_dot[0] * t.tape[kS]);
  if (y_dot.defined()) kept = {x_dot[0], l_dot};
  return y_dot;
}

Tensors ExpertInput::adjoint_tangent(const Tangent& t, const Tensor& y_bar_dot, const Kept& kept, Readout&) const {
  const Tensor &h = t.tape[kH], &s = t.tape[kS], &s1 = t.tape[kS1], &y_bar = t.tape[kYBar];
  Tensor h_bar_dot, along;  // along: l_e_bar_dot
  if (y_bar_dot.defined()) {
    h_bar_dot = y_bar_dot * s;
    along = row_dot(y_bar_dot, h) * s1;
  }
  if (!kept.empty() && kept[kHDot].defined()) along = plus(along, row_dot(kept[kHDot], y_bar) * s1);
  if (!kept.empty() && kept[kLDot].defined()) {
    h_bar_dot = plus(h_bar_dot, kept[kLDot] * s1 * y_bar);
    along = plus(along, kept[kLDot] * t.tape[kBend]);
  }
  if (!along.defined() || !t.wants(1)) return {h_bar_dot, Tensor()};
  const Tensor expert = t.tape[kExpert].to(at::kLong).unsqueeze(0).expand({along.size(0), -1, -1});
  return {h_bar_dot, at::zeros({along.size(0), along.size(1), experts_}, along.options()).scatter_(2, expert, along)};
}

void ExpertInput::second_order(const Tangent& t, const Kept& kept, SecondOrder& form) const {
  if (kept.empty() || !kept[kLDot].defined()) return;
  Tensor b = kept[kLDot] * t.tape[kBend];
  if (kept[kHDot].defined()) b = b + 2 * t.tape[kS1] * row_dot(kept[kHDot], t.tape[kYBar]);  // symmetrised by the sum
  form.add(kept[kLDot], b);
}

std::vector<ExpertLinear::Group> ExpertLinear::groups(const Tensor& expert) const {
  const Tensor flat = expert.flatten().to(at::kLong);
  const Tensor present = std::get<0>(at::_unique(flat)).cpu();
  std::vector<Group> out;
  for (int64_t i = 0; i < present.numel(); ++i) {
    const auto e = present[i].item<int64_t>();
    out.push_back({parameters.at(static_cast<size_t>(e)), flat.eq(e).nonzero().squeeze(1)});
  }
  return out;
}

bool ExpertLinear::any_selected(const Selection& selection) const {
  return std::any_of(parameters.begin(), parameters.end(), [&](int p) { return selection.has(p); });
}

OpCost ExpertLinear::cost(const OpShapes& s) const {
  const int64_t out = s.parameters[0][0], in = s.parameters[0][1];
  const int64_t kept = std::find(s.selected.begin(), s.selected.end(), 1) == s.selected.end() ? 0 : 1;
  const double product = 2.0 * static_cast<double>(out) * static_cast<double>(in);
  return {out, 1 + kept * in, 1 + kept * (in + out), kept * in, 0, in + out, {product, product, product, product, 0}};
}

Tensor ExpertLinear::forward(const Primal& p, const Tensors& x, Kept& kept) const {
  const Tensor expert = expert_of(x[1], slot_);
  if (p.keep) kept = {expert.to(x[0].scalar_type())};
  if (p.keep && any_selected(p.selection)) kept.push_back(x[0]);
  Tensor y;
  for (const Group& g : groups(expert)) {
    const Tensor mine = product(x[0].index_select(0, g.rows), p.parameters.get(g.weight, x[0].scalar_type()).t());
    if (!y.defined()) y = at::empty({x[0].size(0), mine.size(1)}, mine.options());
    y.index_copy_(0, g.rows, mine);
  }
  return y;
}

Tensor ExpertLinear::plain(const Primal& p, const Tensors& x) const {
  Tensor y;
  for (const Group& g : groups(expert_of(x[1].detach(), slot_))) {
    const Tensor mine = x[0].index_select(0, g.rows).mm(p.parameters.get(g.weight, x[0].scalar_type()).t());
    if (!y.defined()) y = at::zeros({x[0].size(0), mine.size(1)}, mine.options());
    y = y.index_copy(0, g.rows, mine);
  }
  return y;
}

Tensors ExpertLinear::adjoint(const Primal& p, const Tensor& y_bar, unsigned wanted, Kept& kept,
                              Readout& gradient) const {
  Tensor x_bar;
  for (const Group& g : groups(kept[kE])) {
    const Tensor mine = y_bar.index_select(0, g.rows);
    if (gradient.wants(g.weight)) {
      const Tensor window = at::floor_divide(g.rows, p.tokens.length);
      for (int64_t s = 0; s < p.tokens.sequences; ++s) {  // gradients are kept per sequence
        const Tensor rows = g.rows.index_select(0, window.eq(s).nonzero().squeeze(1));
        if (rows.numel() == 0) continue;
        LinearMaps{g.weight}.outer(gradient, y_bar.index_select(0, rows), kept[kX].index_select(0, rows), s);
      }
    }
    if ((wanted & 1u) == 0) continue;
    const Tensor bar = product(mine, p.parameters.get(g.weight, y_bar.scalar_type()));
    if (!x_bar.defined()) x_bar = at::empty({y_bar.size(0), bar.size(1)}, bar.options());
    x_bar.index_copy_(0, g.rows, bar);
  }
  if (any_selected(p.selection)) kept.push_back(y_bar);
  return {x_bar, Tensor()};
}

bool ExpertLinear::moves(const Directions& directions) const {
  return std::any_of(parameters.begin(), parameters.end(), [&](int p) { return directions.touches(p); });
}

// A cut of the tokens in which the moved expert has none is zero, not undefined: all cuts of a pass are alike.
Tensor ExpertLinear::forward_tangent(const Tangent& t, const Tensors& x_dot, Kept& kept) const {
  if (t.tape.size() > kX) kept = {x_dot[0]};
  if (!x_dot[0].defined() && !moves(t.directions)) return {};
  const int64_t out = t.parameters.stored(parameters[0]).size(0);
  const Tensor y_dot = at::zeros({t.alive, t.tokens.rows(), out}, t.tape[kE].options().dtype(t.parameters.working()));
  for (const Group& g : groups(t.tape[kE])) {
    const Tensor w = t.parameters.factor(g.weight);
    Tensor mine;
    if (x_dot[0].defined()) mine = times(x_dot[0].index_select(1, g.rows), w.t(), t.parameters.products());
    if (t.directions.touches(g.weight)) LinearMaps{g.weight}.add_step(t, t.tape[kX].index_select(0, g.rows), mine);
    if (mine.defined()) y_dot.index_copy_(1, g.rows, mine);
  }
  return y_dot;
}

Tensors ExpertLinear::adjoint_tangent(const Tangent& t, const Tensor& y_bar_dot, const Kept& kept, Readout& out) const {
  Tensor x_bar_dot;
  if (t.wants(0) && (y_bar_dot.defined() || moves(t.directions)))
    x_bar_dot = at::zeros({t.alive, t.tokens.rows(), t.parameters.stored(parameters[0]).size(1)},
                          t.tape[kE].options().dtype(t.parameters.working()));
  for (const Group& g : groups(t.tape[kE])) {
    const auto of = [&](const Tensor& x, int64_t axis) { return x.defined() ? x.index_select(axis, g.rows) : x; };
    const Tensor mine = of(y_bar_dot, 1);
    if (out.wants(g.weight)) {
      LinearMaps{g.weight}.outer(out, mine, of(t.tape[kX], 0));
      if (!kept.empty()) LinearMaps{g.weight}.outer(out, of(t.tape[kBar], 0), of(kept[kXDot], 1));
    }
    if (!x_bar_dot.defined()) continue;
    Tensor bar;
    if (mine.defined()) bar = times(mine, t.parameters.factor(g.weight), t.parameters.products());
    if (t.directions.touches(g.weight)) LinearMaps{g.weight}.add_step_transposed(t, of(t.tape[kBar], 0), bar);
    if (bar.defined()) x_bar_dot.index_copy_(1, g.rows, bar);
  }
  return {x_bar_dot, Tensor()};
}

void ExpertLinear::second_order(const Tangent& t, const Kept& kept, SecondOrder& form) const {
  if (kept.empty() || !kept[kXDot].defined()) return;
  for (const Group& g : groups(t.tape[kE]))
    if (form.reads().wants(g.weight))
      LinearMaps{g.weight}.outer(form.reads(), t.tape[kBar].index_select(0, g.rows),
                                 kept[kXDot].index_select(1, g.rows));
}

}  // namespace hesper
