#include "hessian/window_prefixes.h"

#include <bit>
#include <stdexcept>

namespace hesper {
namespace {

/// Sizes of sets of which b windows hold two.
int64_t levels_of(int64_t windows) { return std::bit_width(static_cast<uint64_t>(windows)) - 1; }

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
      so_far_(at::zeros({2}, at::kDouble)),
      sum_(at::zeros({n}, at::kDouble)),
      set_(at::zeros({n}, at::kDouble)),
      difference_(at::zeros({n}, at::kDouble)),
      prefixes_(at::zeros({prefixes_of(windows), n}, at::kDouble)),
      waiting_(at::zeros({levels_of(windows), n}, at::kDouble)),
      disjoint_(at::zeros({levels_of(windows), windows / 2}, at::kDouble)) {}

// A set of 2^level windows waits at its level where that bit of the number of windows before is not set.
void WindowPrefixes::add(const at::Tensor& y) {
  const int64_t before = done();
  if (before == windows_) throw std::logic_error("[prefixes] more windows than were promised");
  sum_.add_(y);
  so_far_[0] += 1;
  so_far_[1] += squared(y);
  if (before + 1 < windows_ && std::has_single_bit(static_cast<uint64_t>(before + 1)))
    prefixes_[place_of(before + 1)].copy_(sum_);
  set_.copy_(y);
  for (int64_t level = 0; level < levels_of(windows_); ++level) {
    at::Tensor partner = waiting_[level];
    if ((before >> level & 1) == 0) {
      partner.copy_(set_);
      return;
    }
    const auto p = static_cast<double>(int64_t{1} << level);
    at::sub_out(difference_, partner, set_);
    disjoint_[level][before >> (level + 1)] = squared(difference_) / (2 * p * p);
    set_.add_(partner);
  }
}

NamedTensors WindowPrefixes::sums(const std::string& name) const {
  return {{name + ".so_far", so_far_},
          {name + ".sum", sum_},
          {name + ".prefixes", prefixes_},
          {name + ".waiting", waiting_},
          {name + ".disjoint", disjoint_}};
}

std::vector<std::vector<double>> WindowPrefixes::disjoint() const {
  std::vector<std::vector<double>> out;
  for (int64_t level = 0; level < levels_of(windows_); ++level) {
    const double* d = disjoint_[level].const_data_ptr<double>();
    out.emplace_back(d, d + (done() >> (level + 1)));
  }
  return out;
}

at::Tensor WindowPrefixes::mean() const {
  if (done() != windows_) throw std::logic_error("[prefixes] windows are missing");
  return sum_ / static_cast<double>(windows_);
}

double WindowPrefixes::squared_distance(int64_t p) const {
  return squared(prefixes_[place_of(p)] / static_cast<double>(p) - mean());
}

double WindowPrefixes::squared_norm() const { return squared(mean()); }

int64_t WindowPrefixes::bytes(int64_t n, int64_t windows) {
  return 8 * n * (3 + prefixes_of(windows) + levels_of(windows));
}

}  // namespace hesper
