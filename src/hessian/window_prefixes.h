#pragma once
// How a mean over windows settles as they come in. y_s: a quantity of window s, or some of its entries; m_p the mean of
// the first p windows, p = 1, 2, 4, .., b.
//   distance to all:   |m_p - m_b|^2, in expectation sigma^2 (1/p - 1/b) for independent windows of variance sigma^2:
//                      less than the error sigma^2 / p of m_p, for its windows are among the b
//   disjoint sets:     D_i = |mean of set 2i - mean of set 2i + 1|^2 / 2, sets of p windows one after the other; they
//                      share nothing, so E D_i = sigma^2 / p
//   spread:            (sum_s |y_s|^2 - b |m_b|^2) / (b (b - 1)), in expectation sigma^2 / b
// Sets are joined two and two as they are full, so one set of each size is kept: about 2 log2(b) + 3 times y in all.
#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace hesper {

/// 1, 2, 4, .. below `last`, and `last`.
std::vector<int64_t> doublings(int64_t last);

class WindowPrefixes {
 public:
  WindowPrefixes(int64_t n, int64_t windows);

  /// y (n) fp64 of the next window.
  void add(const at::Tensor& y);

  // Once all windows are there:
  double squared_distance(int64_t p) const;  // of a point p < b
  double squared_norm() const;               // |m_b|^2
  double sum_of_squares() const { return sum_of_squares_; }
  /// D_0, D_1, .. of p = 2^level; levels are as many as there are pairs of.
  const std::vector<std::vector<double>>& disjoint() const { return disjoint_; }

  static int64_t bytes(int64_t n, int64_t windows);

 private:
  at::Tensor mean() const;

  int64_t windows_, done_ = 0;
  double sum_of_squares_ = 0;
  at::Tensor sum_, set_, difference_;          // (n): of all windows so far; on the way through the levels
  at::Tensor prefixes_;                        // (points below b, n): sums of the first 1, 2, 4, .. windows
  at::Tensor waiting_;                         // (levels, n): the sum of a full set that has no partner yet, if any
  std::vector<char> waits_;                    // per level
  std::vector<std::vector<double>> disjoint_;  // per level
};

}  // namespace hesper
