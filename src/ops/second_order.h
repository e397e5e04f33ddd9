#pragma once
// Collects sum over ops of <y_bar, f''[i, j]> for K directions: (K, K), Gauss-Newton part (the head's) and the rest.
// Ops add forms that are not yet symmetric; the matrix is symmetrised once, when it is read.
#include "ops/op.h"
#include "ops/readout.h"
#include "ops/tier_products.h"

namespace hesper {

class SecondOrder {
 public:
  SecondOrder(const Selection& selection, const Directions& directions, at::ScalarType dtype, at::Device device,
              Products products = Products::full);

  /// A fresh one for a cut of the tokens, in the same terms; `commit` adds it to the whole.
  SecondOrder cut() const;
  void commit(SecondOrder& total);

  /// C_ij += scale * sum a_i * b_j; a, b (K, ...) of one shape. Long sums are cut to pieces of a few thousand terms.
  void add(const Tensor& a, const Tensor& b, double scale = 1.0);
  /// C += form, (K, K) fp64, K = the first directions.
  void add_matrix(const Tensor& form);
  /// The same as add for the Gauss-Newton part.
  void add_gauss_newton(const Tensor& a, const Tensor& b, double scale = 1.0);
  /// Weight adjoints of direction j with y_bar_dot = 0: enters as v_i . (reads of j) + v_j . (reads of i).
  Readout& reads() { return reads_; }
  Tensor gauss_newton() const;  // (K, K) fp64, symmetric
  Tensor residual() const;      // (K, K) fp64, symmetric

 private:
  struct Part {
    Tensor recent;  // (K, K) working precision: since the last flush
    Tensor sum;     // (K, K) fp64; undefined until something is moved into it
    void add(const Tensor& a, const Tensor& b, double scale, Products products);
    void move(const Tensor& form);
    void flush();
    bool any() const { return sum.defined() || recent.defined(); }
    Tensor symmetric() const;
  };
  SecondOrder(const Directions& directions, Readout reads) : directions_(directions), reads_(std::move(reads)) {}

  const Directions& directions_;
  at::TensorOptions options_;
  Products products_ = Products::full;
  Part gauss_newton_, residual_;
  Readout reads_;
};

}  // namespace hesper
