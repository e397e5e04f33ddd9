#include "hessian/window_prefixes.h"

#include <bit>
#include <stdexcept>

namespace hesper {
namespace {

/// Sizes of sets of which b windows hold two.
size_t levels_of(int64_t windows) { return static_cast<size_t>(std::bit_width(static_cast<uint64_t>(windows)) - 1); }

/// Of a prefix of p = 1, 2, 4, .. windows.
int64_t place_of(int64_t p) { return std::countr_zero(static_cast<uint64_t>(p)); }
int64_t prefixes_of(int64_t windows) { return static_cast<int64_t>(doublings(windows).size()) - 1; }

double squared(const at::Tensor& t) { return t.dot(t).item<double>(); }

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
      set_(at::zeros({n}, at::kDouble)),
      difference_(at::zeros({n}, at::kDouble)),
      prefixes_(at::zeros({prefixes_of(windows), n}, at::kDouble)),
      waiting_(at::zeros({static_cast<int64_t>(levels_of(windows)), n}, at::kDouble)),
      waits_(levels_of(windows), 0),
      disjoint_(levels_of(windows)) {}

void WindowPrefixes::add(const at::Tensor& y) {
  if (done_ == windows_) throw std::logic_error("[prefixes] more windows than were promised");
  sum_.add_(y);
  sum_of_squares_ += squared(y);
  ++done_;
  if (done_ < windows_ && std::has_single_bit(static_cast<uint64_t>(done_))) prefixes_[place_of(done_)].copy_(sum_);
  set_.copy_(y);
  for (size_t level = 0; level < waits_.size(); ++level) {
    at::Tensor partner = waiting_[static_cast<int64_t>(level)];
    waits_[level] = !waits_[level];
    if (waits_[level]) {
      partner.copy_(set_);
      return;
    }
    const auto p = static_cast<double>(int64_t{1} << level);
    at::sub_out(difference_, partner, set_);
    disjoint_[level].push_back(squared(difference_) / (2 * p * p));
    set_.add_(partner);
  }
}

at::Tensor WindowPrefixes::mean() const {
  if (done_ != windows_) throw std::logic_error("[prefixes] windows are missing");
  return sum_ / static_cast<double>(windows_);
}

double WindowPrefixes::squared_distance(int64_t p) const {
  return squared(prefixes_[place_of(p)] / static_cast<double>(p) - mean());
}

double WindowPrefixes::squared_norm() const { return squared(mean()); }

int64_t WindowPrefixes::bytes(int64_t n, int64_t windows) {
  return 8 * n * (3 + prefixes_of(windows) + static_cast<int64_t>(levels_of(windows)));
}

}  // namespace hesper
