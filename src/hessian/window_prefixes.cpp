#include "hessian/window_prefixes.h"

#include <bit>
#include <stdexcept>

namespace hesper {
namespace {

/// Sizes of sets of which b windows hold two.
size_t levels_of(int64_t windows) { return static_cast<size_t>(std::bit_width(static_cast<uint64_t>(windows)) - 1); }

double squared(const at::Tensor& t) { return t.square().sum().item<double>(); }

}  // namespace

std::vector<int64_t> doublings(int64_t last) {
  std::vector<int64_t> out;
  for (int64_t p = 1; p < last; p *= 2) out.push_back(p);
  out.push_back(last);
  return out;
}

WindowPrefixes::WindowPrefixes(int64_t n, int64_t windows)
    : windows_(windows),
      sum_(at::zeros({n}, at::kDouble)),
      waiting_(levels_of(windows)),
      disjoint_(levels_of(windows)) {}

void WindowPrefixes::add(const at::Tensor& y) {
  if (done_ == windows_) throw std::logic_error("[prefixes] more windows than were promised");
  sum_.add_(y);
  sum_of_squares_ += squared(y);
  ++done_;
  if (done_ < windows_ && std::has_single_bit(static_cast<uint64_t>(done_))) prefixes_.push_back(sum_.clone());
  at::Tensor set = y.clone();
  for (size_t level = 0; level < waiting_.size(); ++level) {
    at::Tensor& partner = waiting_[level];
    if (!partner.defined()) {
      partner = set;
      return;
    }
    const auto p = static_cast<double>(int64_t{1} << level);
    disjoint_[level].push_back(squared(partner - set) / (2 * p * p));
    set.add_(partner);
    partner = at::Tensor();
  }
}

at::Tensor WindowPrefixes::mean() const {
  if (done_ != windows_) throw std::logic_error("[prefixes] windows are missing");
  return sum_ / static_cast<double>(windows_);
}

double WindowPrefixes::squared_distance(int64_t p) const {
  const auto place = static_cast<size_t>(std::countr_zero(static_cast<uint64_t>(p)));
  return squared(prefixes_.at(place) / static_cast<double>(p) - mean());
}

double WindowPrefixes::squared_norm() const { return squared(mean()); }

int64_t WindowPrefixes::bytes(int64_t n, int64_t windows) {
  // The sum, and four for what is computed on the way; a prefix and a waiting set of each size.
  return 8 * n * static_cast<int64_t>(5 + doublings(windows).size() - 1 + levels_of(windows));
}

}  // namespace hesper
