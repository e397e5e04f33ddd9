#pragma once
// Deflation of symmetric H_s (one a window) by a basis Q (r, n) that the windows share:
//   P = I - Q^T Q        diag H_s = e_s + diag P H_s P        e_s = diag (H_s - P H_s P), known from the products H_s Q
//   z = v * (P H_s P v)  E z = diag P H_s P,  Var z_i = sum_{j != i} (P H_s P)_ij^2       v of independent +-1
// so e_s + z is unbiased for every window whatever Q is, and Q only has to take the large off-diagonal entries away.
// It is grown by block Lanczos on the windows' mean: rows B join after h_j = H_s b_j are known, with P before and P'
// after,
//   e_s += sum_j b_j * (P h_j + P' h_j)       next block: the span of mean_s P' h_j
// (P H P - P' H P' with P - P' = B^T B; no orthogonality of Q is used, so its rounding leaves no bias.) One product a
// vector serves both. With r >= rank nothing is left to the probes.
// Block Lanczos: Golub and Underwood 1977; deflated trace estimates: Gambhir, Stathopoulos, Orginos 2017, and Hutch++
// of Meyer, Musco, Musco, Woodruff 2021.
#include "hessian/hutchinson.h"

namespace hesper {

class Deflation {
 public:
  /// Room for `most` vectors of n entries; options: working precision and device.
  Deflation(int64_t most, int64_t n, at::TensorOptions options);

  int64_t size() const { return size_; }  // r
  int64_t room() const { return q_.size(0) - size_; }

  /// x (K, n) -> P x, working precision.
  at::Tensor project(const at::Tensor& x) const;

  /// Orthonormal rows (c, n) of the span of P w, w (K, n), c <= K: directions that are rounding beside the first block
  /// given are left out.
  at::Tensor next_block(const at::Tensor& w);

  struct Known {
    at::Tensor diagonal;  // (n) fp64: sum_j b_j * (P h_j + P' h_j)
    at::Tensor rest;      // (K, n): P' h_j
  };
  /// h (K, n): products with rows [first, first + K) of the block that joins next.
  Known known(const at::Tensor& block, int64_t first, const at::Tensor& h) const;
  void join(const at::Tensor& block);

  /// Of an unfinished run: Q's rows, by a handle, and the scale of the first block; and room made for them again.
  at::Tensor rows() const { return q_.narrow(0, 0, size_); }
  double scale() const { return scale_; }
  void restore(int64_t size, double scale) { size_ = size, scale_ = scale; }

  /// Bytes of Q, and beside it of a block of c vectors while it is made and joined (K at a time).
  static int64_t bytes(int64_t most, int64_t n, int64_t element) { return most * n * element; }
  static int64_t workspace_bytes(int64_t c, int64_t directions, int64_t n, int64_t element) {
    return n * (4 * c * element + 8 * c + directions * (3 * element + 3 * 8));
  }

 private:
  at::Tensor q_;  // (most, n)
  int64_t size_ = 0;
  double scale_ = 0;  // largest |P w|^2 of the first block
};

/// v * (P H P v) of a window: (K, n) fp64; v (K, n) of +-1; recompute: as of TangentPass::product.
at::Tensor deflated_samples(const Deflation& deflation, const TangentPass& pass, const Selection& selection,
                            const at::Tensor& v, int64_t place, Curvature kind, bool recompute = false);

}  // namespace hesper
