#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace hesper {

// Summary of a Hessian block. The eigenvalues lambda are those of the symmetric part (H + H^T) / 2, in float64.
struct Spectrum {
  int64_t n = 0;
  double largest = 0;                  // largest eigenvalue
  double smallest = 0;                 // smallest (most negative) eigenvalue
  double negative_share = 0;           // sum of squared negative eigenvalues / sum of squared eigenvalues
  int64_t negative_diagonal = 0;       // count of h_ii < 0
  double negative_diagonal_share = 0;  // the same over n
  double effective_rank = 0;           // exp(-sum_i p_i log p_i), p_i = |lambda_i| / sum_j |lambda_j|; 0 for H = 0
  double symmetry_error = 0;           // |H - H^T|_F / |H|_F; 0 for H = 0
};

// Beyond this the eigenvalues take minutes on a small machine; callers leave the summary out.
inline constexpr int64_t max_spectrum_size = 5000;

// `h` (n, n), any dtype. O(n^3). Throws std::invalid_argument when it is not square or empty, std::runtime_error when
// it holds values that are not finite.
Spectrum spectrum(const at::Tensor& h);

// |H - H^T|_F / |H|_F of `h` (n, n) alone; 0 for H = 0.
double symmetry_error(const at::Tensor& h);

}  // namespace hesper
