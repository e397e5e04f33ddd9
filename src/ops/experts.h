#pragma once
// A mixture of experts as LLaMA 4 routes it, one slot at a time: of a token's E router logits l the slot-th largest, of
// expert e, lets that expert see the token, scaled by its score s = sigmoid(l_e).
//   input:   y = s h.  With s' = s (1 - s), s'' = s' (1 - 2s):
//            y_dot = s h_dot + s' l_e_dot h
//            h_bar = s y_bar,  l_e_bar = s' (h.y_bar)
//            h_bar_dot = s y_bar_dot + s' l_e_dot y_bar
//            l_e_bar_dot = s' (h.y_bar_dot + h_dot.y_bar) + s'' (h.y_bar) l_e_dot
//            second order: s' (l_e_dot_i (y_bar.h_dot_j) + l_e_dot_j (y_bar.h_dot_i)) + s'' (h.y_bar) l_e_dot_i
//            l_e_dot_j
//   linear:  y = W_e x, the maps of linear.h token by token.
// Which expert a token goes to is piecewise constant in the weights: derivatives are those inside a piece, and say
// nothing of what happens when a token changes hands.
#include "ops/op.h"

namespace hesper {

class ExpertInput : public Op {
 public:
  /// experts: E.
  ExpertInput(int h, int logits, int64_t experts, int64_t slot) : Op({h, logits}, {}), experts_(experts), slot_(slot) {}
  Tensor forward(const Primal&, const Tensors& x, Kept&) const override;
  Tensor plain(const Primal&, const Tensors& x) const override;
  Tensors adjoint(const Primal&, const Tensor& y_bar, unsigned wanted, Kept&, Readout&) const override;
  Tensor forward_tangent(const Tangent&, const Tensors& x_dot, Kept&) const override;
  Tensors adjoint_tangent(const Tangent&, const Tensor& y_bar_dot, const Kept&, Readout&) const override;
  void second_order(const Tangent&, const Kept&, SecondOrder&) const override;
  OpCost cost(const OpShapes& s) const override {
    const int64_t c = s.inputs[0], experts = s.inputs[1];
    return {c, c + 2, 2 * c + 4, c + 1, 1, 2 * experts};
  }
  std::string name() const override { return "expert_input"; }
  /// The expert of each token: (rows, 1) int64.
  Tensor chosen(const Tensor& logits) const;
  /// How far its logit is above the next one, of each token: (rows); undefined for the last of all experts.
  Tensor margin(const Tensor& logits) const;

 private:
  int64_t experts_, slot_;
};

class ExpertLinear : public Op {
 public:
  /// weights: the matrix (out, in) of every expert.
  ExpertLinear(int x, int logits, std::vector<int> weights, int64_t slot)
      : Op({x, logits}, std::move(weights)), slot_(slot) {}
  Tensor forward(const Primal&, const Tensors& x, Kept&) const override;
  Tensor plain(const Primal&, const Tensors& x) const override;
  Tensors adjoint(const Primal&, const Tensor& y_bar, unsigned wanted, Kept&, Readout&) const override;
  Tensor forward_tangent(const Tangent&, const Tensors& x_dot, Kept&) const override;
  Tensors adjoint_tangent(const Tangent&, const Tensor& y_bar_dot, const Kept&, Readout&) const override;
  void second_order(const Tangent&, const Kept&, SecondOrder&) const override;
  OpCost cost(const OpShapes& s) const override;
  std::string name() const override { return "expert_linear"; }

 private:
  /// The tokens of one expert.
  struct Group {
    int weight;   // parameter number
    Tensor rows;  // (m) int64
  };
  std::vector<Group> groups(const Tensor& expert) const;
  bool any_selected(const Selection&) const;
  bool moves(const Directions&) const;
  int64_t slot_;
};

}  // namespace hesper
