#pragma once
// What directions d_1 .. d_K are ranked by: what each costs, what the second order says, and the proxies that searches
// over quantised layers use in their place. Of window s, g_s and H_s = G_s + R_s the gradient and Hessian of its loss:
//   actual        l_s(w + d) - l_s(w)
//   predicted     g_s.d + d^T H_s d / 2
//   diagonal      sum_i (H_s)_ii d_i^2 / 2
//   gauss_newton  sum_i (G_s)_ii d_i^2 / 2
//   fisher        sum_i (g_s)_i^2 d_i^2              empirical Fisher of whole windows
//   output_error  (1/T) sum_t |dW x_t + db|^2        x_t (in) the layer's input: GPTQ's objective
//   weight_error  sum_i d_i^2
#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

namespace hesper {

struct RankColumn {
  std::string name;
  at::Tensor values;  // (b, K) fp64 of each window, (1, K) where they share it; NaN where a direction has none

  at::Tensor mean() const { return values.mean(0); }  // (K)
  at::Tensor standard_error() const;                  // (K) of the mean over the windows; NaN for one window
  /// (K) 1 for the largest mean, equal ones in order; 0 where there is none.
  std::vector<int64_t> places() const;
};

struct RankCorrelation {
  double spearman = 0;     // of the means; NaN where it has no value
  double error = 0;        // its jackknife standard error over the windows; NaN for one window
  int64_t directions = 0;  // that have both
};
/// With rho_(s) the correlation of the means over all windows but s:
///   error^2 = (b - 1)/b sum_s (rho_(s) - mean rho)^2
RankCorrelation rank_correlation(const RankColumn& a, const RankColumn& b);

}  // namespace hesper
