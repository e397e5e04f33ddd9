#include "run/rank.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "report/compare.h"

namespace hesper {
namespace {

using at::Tensor;
constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

std::vector<double> to_vector(const Tensor& t) {
  const Tensor flat = t.contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

/// (b, K) -> (K): mean over the windows without window s.
Tensor mean_without(const Tensor& values, int64_t s) {
  return (values.sum(0) - values[s]) / static_cast<double>(values.size(0) - 1);
}

}  // namespace

Tensor RankColumn::standard_error() const {
  if (values.size(0) < 2) return at::full({values.size(1)}, unknown, at::kDouble);
  return values.std(0) / std::sqrt(static_cast<double>(values.size(0)));
}

std::vector<int64_t> RankColumn::places() const {
  const std::vector<double> means = to_vector(mean());
  std::vector<size_t> order(means.size());
  std::iota(order.begin(), order.end(), 0);
  std::erase_if(order, [&](size_t k) { return !std::isfinite(means[k]); });
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return means[i] > means[j]; });
  std::vector<int64_t> out(means.size(), 0);
  for (size_t place = 0; place < order.size(); ++place) out[order[place]] = static_cast<int64_t>(place) + 1;
  return out;
}

RankCorrelation rank_correlation(const RankColumn& a, const RankColumn& b) {
  const int64_t windows = std::max(a.values.size(0), b.values.size(0));
  const Tensor both = (a.mean() + b.mean()).isfinite().nonzero().squeeze(1);
  const auto shared = [&](const RankColumn& column) {
    return column.values.index_select(1, both).expand({windows, both.numel()});
  };
  const Tensor x = shared(a), y = shared(b);
  RankCorrelation out{.directions = both.numel()};
  out.spearman = spearman(to_vector(x.mean(0)), to_vector(y.mean(0)));
  out.error = unknown;
  if (windows < 2) return out;
  std::vector<double> left_out;
  for (int64_t s = 0; s < windows; ++s)
    left_out.push_back(spearman(to_vector(mean_without(x, s)), to_vector(mean_without(y, s))));
  const auto n = static_cast<double>(windows);
  const double mean = std::accumulate(left_out.begin(), left_out.end(), 0.0) / n;
  double squares = 0;
  for (const double rho : left_out) squares += (rho - mean) * (rho - mean);
  out.error = std::sqrt((n - 1) / n * squares);
  return out;
}

}  // namespace hesper
