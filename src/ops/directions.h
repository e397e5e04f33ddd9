#pragma once
// K directions over the selected weights, and how a tangent starts from them.
#include "ops/op.h"
#include "ops/selection.h"
#include "ops/tier_products.h"

namespace hesper {

/// A whole parameter's step along one direction.
struct Move {
  int64_t direction;
  int parameter;
  Tensor values;  // the parameter's shape
};

class Directions {
 public:
  /// Unit vectors e_begin .. e_{end-1}: each moves one weight. No dense w_dot is ever built.
  static Directions units(const Selection& selection, int64_t begin, int64_t end, at::ScalarType dtype);
  /// Rows of v (K, n).
  static Directions dense(const Selection& selection, const Tensor& v, at::ScalarType dtype);
  /// `count` directions made of moves of whole parameters, at most one for a pair of direction and parameter.
  static Directions moves(const std::vector<Move>& moves, int64_t count, at::ScalarType dtype, at::Device device);

  int64_t count() const { return count_; }
  /// Made by `moves`: what a pass reads is products with the directions, not entries.
  bool whole_tensors() const { return whole_tensors_; }
  bool touches(int parameter) const;
  /// The first `alive` directions that must be carried once `parameter` has been met (0 when none moves it).
  int64_t reach(int parameter) const;

  /// y_dot (K, rows, out) += x (rows, in) w_dot^T. An undefined y_dot starts at zero with width `out`. products: how
  /// dense steps of a whole parameter are multiplied.
  void add_linear(int parameter, const Tensor& x, Tensor& y_dot, int64_t alive, int64_t out,
                  Products products = Products::full) const;
  /// x_bar_dot (K, rows, in) += y_bar (rows, out) w_dot.
  void add_linear_transposed(int parameter, const Tensor& y_bar, Tensor& x_bar_dot, int64_t alive, int64_t in,
                             Products products = Products::full) const;
  /// w_dot of a vector parameter: (K, 1, width), undefined when no direction moves it.
  Tensor vector(int parameter, int64_t alive) const;
  /// w_dot rows of a table: (K, rows, width) for ids (rows); undefined when no direction moves it.
  Tensor lookup(int parameter, const Tensor& ids, int64_t alive) const;

  // <w_bar, w_dot_k> of every direction, (R, K) in fp64; what a Readout onto directions adds up. Not for units.
  /// w_bar = a^T b summed over tokens; a (R, tokens, out), b (R, tokens, in), either may lack R.
  Tensor project_outer(int parameter, const Tensor& a, const Tensor& b) const;
  /// w_bar = a summed over tokens; a (R, tokens, width).
  Tensor project_columns(int parameter, const Tensor& a) const;
  /// w_bar += a at the rows `ids` of a table; ids (tokens) or (R, tokens), a (R, tokens, width).
  Tensor project_rows(int parameter, const Tensor& ids, const Tensor& a) const;

  /// V (K, n) times a (n, m) matrix in fp64; for units: its rows [begin, end).
  Tensor apply(const Tensor& m) const;

 private:
  struct Start {
    int parameter;
    int64_t width;
    int64_t reach = 0;      // directions from `reach` on do not move it
    Tensor direction{};     // units and moves: (m) int64, which directions; undefined: all K
    Tensor row{}, col{};    // units: (m) int64 each, the one entry
    Tensor rows{}, cols{};  // dense: distinct rows and columns that hold an entry; undefined: the whole parameter
    Tensor values{};        // dense: (K, |rows|, |cols|); moves: (m, out, in), a vector counts as one row
    bool whole = false;     // dense: every entry
    bool unit() const { return row.defined(); }
  };
  const Start* find(int parameter) const;
  Tensor projected(const Start& s, const Tensor& mine) const;

  std::vector<Start> starts_;
  int64_t count_ = 0, begin_ = 0;
  bool whole_tensors_ = false;
  Tensor v_;  // dense: (K, n)
  at::ScalarType dtype_ = at::kFloat;
};

}  // namespace hesper
