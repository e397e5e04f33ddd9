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

#include "hessian/named_tensors.h"

namespace hesper {

/// 1, 2, 4, .. below `last`, and `last`.
std::vector<int64_t> doublings(int64_t last);

class WindowPrefixes {
 public:
  WindowPrefixes(int64_t n, int64_t windows);

  /// y (n) fp64 of the next window.
  void add(const at::Tensor& y);

  /// All that `add` adds up, by handles and under these names: the state of an unfinished run.
  NamedTensors sums(const std::string& name) const;

  // Once all windows are there:
  double squared_distance(int64_t p) const;  // of a point p < b
  double squared_norm() const;               // |m_b|^2
  double sum_of_squares() const { return so_far_[1].item<double>(); }
  /// D_0, D_1, .. of p = 2^level; levels are as many as there are pairs of.
  std::vector<std::vector<double>> disjoint() const;

  static int64_t bytes(int64_t n, int64_t windows);

 private:
  at::Tensor mean() const;
  int64_t done() const { return static_cast<int64_t>(so_far_[0].item<double>()); }

  int64_t windows_;
  at::Tensor so_far_;                  // (2): windows, sum of their squared norms
  at::Tensor sum_, set_, difference_;  // (n): of all windows so far; on the way through the levels
  at::Tensor prefixes_;                // (points below b, n): sums of the first 1, 2, 4, .. windows
  at::Tensor waiting_;                 // (levels, n): the sum of a full set that has no partner yet, if any
  at::Tensor disjoint_;                // (levels, pairs of the first one): D_i
};

}  // namespace hesper
