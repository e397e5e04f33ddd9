#pragma once
// The ops that are linear in their input: residual sum, factors, choice of channels, rotary embedding, embedding
// tables. Their tangent is the same map, their adjoint_tangent its transpose; their second-order form is zero.
#include "ops/op.h"

namespace hesper {

/// y = a + b, the residual connection.
class Add : public Op {
 public:
  Add(int a, int b) : Op({a, b}, {}) {}
  Tensor forward(const Primal&, const Tensors& x, Kept&) const override { return x[0] + x[1]; }
  Tensors adjoint(const Primal&, const Tensor& y_bar, unsigned, Kept&, Readout&) const override {
    return {y_bar, y_bar};
  }
  Tensor forward_tangent(const Tangent&, const Tensors& x_dot, Kept&) const override {
    return plus(x_dot[0], x_dot[1]);
  }
  Tensors adjoint_tangent(const Tangent&, const Tensor& y_bar_dot, const Kept&, Readout&) const override {
    return {y_bar_dot, y_bar_dot};
  }
  void second_order(const Tangent&, const Kept&, SecondOrder&) const override {}
  OpCost cost(const OpShapes& s) const override { return {.width = s.inputs[0]}; }
  std::string name() const override { return "add"; }
};

/// y = a x with a factor for all tokens or for each position: Gemma's embeddings, LLaMA 4's attention temperature.
class Scale : public Op {
 public:
  /// factors: one, or one for each position.
  Scale(int x, const std::vector<double>& factors);
  Tensor forward(const Primal& p, const Tensors& x, Kept&) const override { return scaled(x[0], p.tokens); }
  Tensors adjoint(const Primal& p, const Tensor& y_bar, unsigned, Kept&, Readout&) const override {
    return {scaled(y_bar, p.tokens)};
  }
  Tensor forward_tangent(const Tangent& t, const Tensors& x_dot, Kept&) const override {
    return scaled(x_dot[0], t.tokens);
  }
  Tensors adjoint_tangent(const Tangent& t, const Tensor& y_bar_dot, const Kept&, Readout&) const override {
    return {scaled(y_bar_dot, t.tokens)};
  }
  void second_order(const Tangent&, const Kept&, SecondOrder&) const override {}
  OpCost cost(const OpShapes& s) const override { return {.width = s.inputs[0]}; }
  std::string name() const override { return "scale"; }
  void place(at::Device where) override;

 private:
  Tensor scaled(const Tensor& x, const Tokens& tokens) const;
  Tensor factors_;  // (1) or (tokens) fp64
};

/// Channels [begin, end) of each of the runs of `width` channels that x is made of: q, k or v of a fused projection.
class Channels : public Op {
 public:
  Channels(int x, int64_t width, int64_t begin, int64_t end) : Op({x}, {}), width_(width), begin_(begin), end_(end) {}
  Tensor forward(const Primal&, const Tensors& x, Kept&) const override { return picked(x[0]); }
  Tensors adjoint(const Primal&, const Tensor& y_bar, unsigned, Kept&, Readout&) const override {
    return {placed(y_bar)};
  }
  Tensor forward_tangent(const Tangent&, const Tensors& x_dot, Kept&) const override { return picked(x_dot[0]); }
  Tensors adjoint_tangent(const Tangent&, const Tensor& y_bar_dot, const Kept&, Readout&) const override {
    return {placed(y_bar_dot)};
  }
  void second_order(const Tangent&, const Kept&, SecondOrder&) const override {}
  OpCost cost(const OpShapes& s) const override {
    return {.width = s.inputs[0] / width_ * (end_ - begin_), .temporaries = s.inputs[0]};
  }
  std::string name() const override { return "channels"; }

 private:
  Tensor picked(const Tensor& x) const;
  Tensor placed(const Tensor& y) const;
  int64_t width_, begin_, end_;
};

/// Rotary position embedding of heads of width D, of which F pairs of channels are turned, pair i by the angle
/// position * inverse_frequency[i] and multiplied by a factor: channels (i, i + F) of a head, or (2i, 2i + 1) where
/// interleaved; channels from 2F on stay. The transpose is the turn by the opposite angle, times the same factor.
class Rotary : public Op {
 public:
  enum class Pairs { halves, neighbours };
  /// inverse_frequencies: F of them, fp64; positions 0 .. tokens-1 are tabulated, cosine and sine times `factor`.
  /// head_dim: D; 0 means 2F.
  Rotary(int x, const std::vector<double>& inverse_frequencies, int64_t tokens, int64_t head_dim = 0,
         Pairs pairs = Pairs::halves, double factor = 1);
  Tensor forward(const Primal&, const Tensors& x, Kept&) const override;
  Tensors adjoint(const Primal&, const Tensor& y_bar, unsigned, Kept&, Readout&) const override;
  Tensor forward_tangent(const Tangent&, const Tensors& x_dot, Kept&) const override;
  Tensors adjoint_tangent(const Tangent&, const Tensor& y_bar_dot, const Kept&, Readout&) const override;
  void second_order(const Tangent&, const Kept&, SecondOrder&) const override {}
  OpCost cost(const OpShapes& s) const override { return {.width = s.inputs[0], .temporaries = 3 * s.inputs[0]}; }
  std::string name() const override { return "rotary"; }
  void place(at::Device where) override;

 private:
  Tensor angles(const Tensor& wide, const Tensor& low, const Tokens& tokens, at::ScalarType dtype) const;
  Tensor turn(const Tensor& x, const Tokens& tokens, bool back) const;
  Tensor turn_tangent(const Tangent& t, const Tensor& x, bool back) const;
  Tensor cos_, sin_;          // (tokens, F) fp64, times the factor
  Tensor cos_low_, sin_low_;  // the same, fp32
  int64_t head_dim_;
  Pairs pairs_;
};

/// y = rows of a table (V, C), picked by token id or by position + offset (OPT: offset 2).
class Embedding : public Op {
 public:
  enum class By { token, position };
  Embedding(By by, int table, int64_t offset) : Op({}, {table}), by_(by), offset_(offset) {}
  Tensor forward(const Primal&, const Tensors&, Kept&) const override;
  Tensors adjoint(const Primal&, const Tensor& y_bar, unsigned, Kept&, Readout&) const override;
  Tensor forward_tangent(const Tangent&, const Tensors&, Kept&) const override;
  Tensors adjoint_tangent(const Tangent&, const Tensor& y_bar_dot, const Kept&, Readout&) const override;
  void second_order(const Tangent&, const Kept&, SecondOrder&) const override {}
  OpCost cost(const OpShapes& s) const override { return {.width = s.parameters[0][1]}; }
  std::string name() const override { return "embedding"; }

 private:
  Tensor rows(const Tokens& tokens) const;  // (rows) int64
  By by_;
  int64_t offset_;
};

}  // namespace hesper
