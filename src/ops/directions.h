#pragma once
// K directions over the selected weights, and how a tangent starts from them.
#include "ops/op.h"
#include "ops/selection.h"

namespace hesper {

class Directions {
 public:
  /// Unit vectors e_begin .. e_{end-1}: each moves one weight. No dense w_dot is ever built.
  static Directions units(const Selection& selection, int64_t begin, int64_t end, at::ScalarType dtype);
  /// Rows of v (K, n).
  static Directions dense(const Selection& selection, const Tensor& v, at::ScalarType dtype);

  int64_t count() const { return count_; }
  bool touches(int parameter) const;
  /// The first `alive` directions that must be carried once `parameter` has been met (0 when none moves it).
  int64_t reach(int parameter) const;

  /// y_dot (K, rows, out) += x (rows, in) w_dot^T. An undefined y_dot starts at zero with width `out`.
  void add_linear(int parameter, const Tensor& x, Tensor& y_dot, int64_t alive, int64_t out) const;
  /// x_bar_dot (K, rows, in) += y_bar (rows, out) w_dot.
  void add_linear_transposed(int parameter, const Tensor& y_bar, Tensor& x_bar_dot, int64_t alive, int64_t in) const;
  /// w_dot of a vector parameter: (K, 1, width), undefined when no direction moves it.
  Tensor vector(int parameter, int64_t alive) const;
  /// w_dot rows of a table: (K, rows, width) for ids (rows); undefined when no direction moves it.
  Tensor lookup(int parameter, const Tensor& ids, int64_t alive) const;
  /// V (K, n) times a (n, m) matrix in fp64; for units: its rows [begin, end).
  Tensor apply(const Tensor& m) const;

 private:
  struct Start {
    int parameter;
    int64_t width;
    int64_t reach;               // directions from `reach` on do not move it
    Tensor direction, row, col;  // units: (m) int64 each
    Tensor rows, cols, values;   // dense: distinct rows and columns, (K, |rows|, |cols|)
  };
  const Start* find(int parameter) const;

  std::vector<Start> starts_;
  int64_t count_ = 0, begin_ = 0;
  Tensor v_;  // dense: (K, n) fp64
  at::ScalarType dtype_ = at::kFloat;
};

}  // namespace hesper
