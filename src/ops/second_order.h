#pragma once
// Collects sum over ops of <y_bar, f''[i, j]> for K directions: (K, K), Gauss-Newton part (the head's) and the rest.
// Ops add forms that are not yet symmetric; the matrix is symmetrised once, when it is read.
#include "ops/op.h"
#include "ops/readout.h"

namespace hesper {

class SecondOrder {
 public:
  SecondOrder(const Selection& selection, const Directions& directions, at::ScalarType dtype, at::Device device);

  /// C_ij += scale * sum a_i * b_j; a, b (K, ...) of one shape. Long sums are cut to pieces of a few thousand terms.
  void add(const Tensor& a, const Tensor& b, double scale = 1.0);
  /// C += form, (K, K) fp64, K = the first directions.
  void add_matrix(const Tensor& form);
  /// The same as add for the Gauss-Newton part.
  void add_gauss_newton(const Tensor& a, const Tensor& b, double scale = 1.0);
  /// Weight adjoints of direction j with y_bar_dot = 0: enters as v_i . (reads of j) + v_j . (reads of i).
  Readout& reads() { return reads_; }
  /// Moves what was added since the last call from working precision into the fp64 sums.
  void flush();

  Tensor gauss_newton() const;  // (K, K) fp64, symmetric
  Tensor residual() const;      // (K, K) fp64, symmetric

 private:
  struct Part {
    Tensor sum, recent;  // (K, K): fp64, and working precision since the last flush
    bool dirty = false;
    void add(const Tensor& a, const Tensor& b, double scale);
    void flush();
  };
  const Directions& directions_;
  Part gauss_newton_, residual_;
  Readout reads_;
};

}  // namespace hesper
