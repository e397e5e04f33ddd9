#pragma once
// One op, four maps (and the second-order form that the Gram pass sums). With f(x, w) the op, x_dot a tangent
// (K directions, leading axis), y_bar = dLoss/dy:
//   forward          y         = f(x, w)
//   adjoint          x_bar     = f_x^T y_bar                      w_bar     = f_w^T y_bar      at selected weights
//   forward_tangent  y_dot     = f_x x_dot + f_w w_dot
//   adjoint_tangent  x_bar_dot = f_x^T y_bar_dot + d/de [f_x(x + e x_dot, w + e w_dot)^T] y_bar    and w_bar_dot
//   second_order     <y_bar, f''[(x_dot, w_dot)_i, (x_dot, w_dot)_j]>   for all pairs i, j of directions
// An undefined tensor is a zero tangent or adjoint: nothing is computed for it.
#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

namespace hesper {

using at::Tensor;
using Tensors = std::vector<Tensor>;

class Directions;
class Parameters;
class Readout;
class SecondOrder;
class Selection;

/// The tokens a pass works on: a whole batch (primal pass) or a run of tokens of one sequence (tangent passes).
struct Tokens {
  int64_t sequences = 1;  // B
  int64_t length = 0;     // tokens of each
  int64_t offset = 0;     // position of the first one in its sequence
  Tensor ids;             // (rows) int64
  Tensor targets;         // (rows) int64: the id that follows; 0 where weights is 0
  Tensor weights;         // (rows): 1 / (counted tokens of the window), 0 where no loss is counted

  int64_t rows() const { return sequences * length; }
  /// Tokens [begin, begin + length) of sequence s.
  Tokens cut(int64_t s, int64_t begin, int64_t length) const;
  /// (m) int64, ascending: the rows that carry loss, the only ones the head has to see.
  Tensor counted() const { return weights.nonzero().squeeze(1); }
  /// The same tokens with their tensors on `device`.
  Tokens to(at::Device device) const {
    return {sequences, length, offset, ids.to(device), targets.to(device), weights.to(device)};
  }
  /// (rows, width) as (B, T, width).
  Tensor per_sequence(const Tensor& t) const { return t.view({sequences, length, t.size(-1)}); }
};

/// What an op keeps for the later maps. Every tensor leads with rows, (B*T, ...) on the tape and (K, rows, ...)
/// among the tangents, so that a pass can cut it to a run of tokens.
using Kept = std::vector<Tensor>;

/// What the primal maps see beside values.
struct Primal {
  const Tokens& tokens;
  const Parameters& parameters;
  const Selection& selection;
  at::ScalarType precision;  // of values and adjoints
  bool keep = true;          // false below the first selected weight: nothing there will be read again
};

/// What the tangent maps see beside tangents. `tape` is cut to `tokens`.
struct Tangent {
  const Tokens& tokens;
  const Parameters& parameters;
  const Directions& directions;
  const Kept& tape;
  int64_t alive;  // K: directions that may be non-zero here (the first ones)
  /// One op is asked for only some of its input adjoints; bit i = input i.
  unsigned wanted = ~0u;
  bool wants(int input) const { return (wanted >> input & 1u) != 0; }
  /// Set in a Gram pass: forward_tangent may add the op's second-order form itself and leave `kept` empty, which tells
  /// second_order that there is nothing left to add.
  SecondOrder* form = nullptr;
  /// What may be written as the left factor of a product (tier_products.h), since nothing else reads it: the result of
  /// forward_tangent, and result i of adjoint_tangent (bit i).
  bool factor = false;
  unsigned factors = 0;
  /// The sums so far of all adjoints' tangents, by value number. An op may take an input's, to return it with its own
  /// share added; what it leaves is added to by the pass.
  Tensors* sums = nullptr;
  Tensor take(int value) const { return sums ? std::exchange((*sums)[value], Tensor()) : Tensor(); }
};

/// Floating-point operations of the maps for one token (and one direction); what costs no matrix product is left out.
struct Flops {
  double forward = 0, adjoint = 0, tangent = 0, adjoint_tangent = 0;
  double form = 0;  // of second_order, products of pairs of directions excluded
};
/// What an op holds and computes for one token, in elements and floating-point operations: the planner's input.
struct OpCost {
  int64_t width = 0;         // of its output
  int64_t kept_forward = 0;  // by forward, in the primal precision
  int64_t kept_tape = 0;     // after adjoint, in the working precision
  int64_t kept_tangent = 0;  // by forward_tangent, for each direction; attention: beside its inputs and output
  int64_t form_width = 0;    // channels that enter the second-order form's products
  int64_t temporaries = 0;   // that forward or adjoint holds at most, beside inputs, outputs and what it keeps
  Flops flops{};
};
/// What it depends on.
struct OpShapes {
  std::vector<int64_t> inputs;                   // widths
  std::vector<std::vector<int64_t>> parameters;  // shapes, in the op's order; empty for one it lacks
  std::vector<char> selected;                    // per parameter
  int64_t tokens = 0;                            // T
};

class Op {
 public:
  Op(std::vector<int> inputs, std::vector<int> parameters)
      : inputs(std::move(inputs)), parameters(std::move(parameters)) {}
  virtual ~Op() = default;

  /// x: one (rows, width) per input -> y (rows, width).
  virtual Tensor forward(const Primal&, const Tensors& x, Kept& kept) const = 0;
  /// The same function as differentiable ATen calls and nothing kept: what `--engine autograd` differentiates.
  virtual Tensor plain(const Primal& p, const Tensors& x) const {
    Kept nothing;
    return forward(p, x, nothing);
  }
  /// y_bar (rows, width) -> x_bar, one per input (undefined where bit i of `wanted` is 0). Adds what tangent passes
  /// read to `kept`, and w_bar at the selected weights, one row a sequence, to `gradient`.
  virtual Tensors adjoint(const Primal&, const Tensor& y_bar, unsigned wanted, Kept& kept, Readout& gradient) const = 0;

  /// x_dot: one (K, rows, width) per input -> y_dot (K, rows, width); `kept` is what the next two maps read.
  virtual Tensor forward_tangent(const Tangent&, const Tensors& x_dot, Kept& kept) const = 0;
  /// y_bar_dot (K, rows, width) -> x_bar_dot per input; w_bar_dot (K, n) into `out`. `kept` empty: all tangents zero
  /// (Gauss-Newton products).
  virtual Tensors adjoint_tangent(const Tangent&, const Tensor& y_bar_dot, const Kept& kept, Readout& out) const = 0;
  /// Adds the op's second-order form to `form`.
  virtual void second_order(const Tangent&, const Kept& kept, SecondOrder& form) const = 0;

  virtual OpCost cost(const OpShapes& shapes) const = 0;
  /// Bytes that the tangent maps hold beside their inputs and outputs, for one window; token-local ops: none of note.
  virtual int64_t scratch_bytes(int64_t /*tokens*/, int64_t /*directions*/, int64_t /*element_size*/,
                                int /*threads*/) const {
    return 0;
  }
  /// The same for the primal maps of `sequences` windows.
  virtual int64_t primal_scratch_bytes(int64_t /*tokens*/, int64_t /*sequences*/, int64_t /*element_size*/) const {
    return 0;
  }
  /// Either on a GPU with `leading` windows or directions at a time, as composed maps or (fused) as kernels.
  virtual int64_t device_scratch_bytes(int64_t /*tokens*/, int64_t /*leading*/, int64_t /*element_size*/,
                                       bool /*fused*/) const {
    return 0;
  }
  /// True where an op of which fused kernels know most shapes runs as composed maps on every device.
  virtual bool composed(int64_t /*tokens*/) const { return false; }
  /// False for attention, which couples the tokens of a sequence.
  virtual bool token_local() const { return true; }
  /// True where the tangent maps read their argument as the left factor of a product, unless parameters are selected.
  virtual bool multiplies() const { return false; }
  virtual std::string name() const = 0;
  /// Moves the op's own tables to the device that runs it.
  virtual void place(at::Device where) { device = where; }

  at::Device device = at::kCPU;
  const std::vector<int> inputs;      // value numbers
  const std::vector<int> parameters;  // parameter numbers; -1 for one that this instance lacks
  int output = -1;                    // value number
};

/// Sums where an undefined tensor is zero.
Tensor plus(const Tensor& a, const Tensor& b);
/// x y^T for x (k, ...), y (l, ...) that agree in the rest: (k, l) fp64. Long sums are cut to pieces, since a product
/// over millions of terms loses digits inside one fp32 accumulator.
Tensor piecewise_product(const Tensor& x, const Tensor& y);
/// True where no other tensor shares its memory: it may be changed in place.
bool unshared(const Tensor& x);
/// Tensors of the host sent to `device` in stream order; those that are there themselves.
Kept on_device(const Kept& kept, at::Device device);
/// Kept tensors cut to rows [begin, begin + length) of their leading axis.
Kept cut_rows(const Kept& kept, int64_t begin, int64_t length);

}  // namespace hesper
