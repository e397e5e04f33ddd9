#include "report/compare.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "checkpoint/safetensors.h"
#include "report/json_number.h"
#include "report/pt_file.h"
#include "text/npy.h"

namespace hesper {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

std::string shape_text(const at::Tensor& x) { return fmt::format("({})", fmt::join(x.sizes(), ", ")); }

at::Tensor finite_double(const at::Tensor& x, const char* name) {
  const at::Tensor value = x.detach().to(at::kCPU, at::kDouble).contiguous();
  const int64_t bad = value.numel() - at::isfinite(value).sum().item<int64_t>();
  if (bad > 0) throw std::runtime_error(fmt::format("{} holds {} values that are not finite", name, bad));
  return value;
}

// x / y with 0 / 0 = 0: equal things differ by nothing.
double ratio(double x, double y) { return x == 0 && y == 0 ? 0 : x / y; }

std::vector<double> to_vector(const at::Tensor& x) {
  const at::Tensor flat = x.contiguous().flatten();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

// Ranks 1..n, equal values share the mean of their places.
std::vector<double> average_ranks(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t i, size_t j) { return values[i] < values[j]; });
  std::vector<double> ranks(values.size());
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    for (size_t i = begin; i < end; ++i) ranks[order[i]] = 0.5 * static_cast<double>(begin + 1 + end);
  }
  return ranks;
}

// Indices of the k largest magnitudes, ascending.
std::vector<size_t> top_indices(const std::vector<double>& values, int64_t k) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  const auto by_magnitude = [&](size_t i, size_t j) {
    const double x = std::abs(values[i]), y = std::abs(values[j]);
    return x != y ? x > y : i < j;
  };
  std::partial_sort(order.begin(), order.begin() + k, order.end(), by_magnitude);
  order.resize(static_cast<size_t>(k));
  std::sort(order.begin(), order.end());
  return order;
}

double top_overlap(const std::vector<double>& a, const std::vector<double>& b, int64_t k) {
  const std::vector<size_t> in_a = top_indices(a, k), in_b = top_indices(b, k);
  std::vector<size_t> both;
  std::set_intersection(in_a.begin(), in_a.end(), in_b.begin(), in_b.end(), std::back_inserter(both));
  return static_cast<double>(both.size()) / static_cast<double>(k);
}

BarDifference bar_difference(const at::Tensor& difference, const at::Tensor& standard_error) {
  BarDifference bars;
  double squares = 0;
  const double* d = difference.const_data_ptr<double>();
  const double* se = standard_error.const_data_ptr<double>();
  for (int64_t i = 0; i < difference.numel(); ++i) {
    if (se[i] < 0) throw std::runtime_error(fmt::format("the standard errors hold a negative value, {}", se[i]));
    if (se[i] == 0 && d[i] == 0) continue;
    const double in_bars = se[i] > 0 ? std::abs(d[i]) / se[i] : infinity;
    bars.max = std::max(bars.max, in_bars);
    squares += in_bars * in_bars;
    ++bars.count;
  }
  if (bars.count > 0) bars.rms = std::sqrt(squares / static_cast<double>(bars.count));
  return bars;
}

at::Tensor read_safetensors(const std::string& path, const std::string& name) {
  const SafetensorsFile file(path);
  if (!name.empty()) return file.view(name).clone();
  if (file.tensors().size() == 1) return file.view(file.tensors()[0].name).clone();
  std::vector<std::string> names;
  for (const TensorInfo& tensor : file.tensors()) {
    names.push_back(names.size() < 8 ? tensor.name : "...");
    if (names.size() > 8) break;
  }
  throw std::invalid_argument(fmt::format("{}: holds {} tensors, name one as FILE:TENSOR ({})", path,
                                          file.tensors().size(), fmt::join(names, ", ")));
}

}  // namespace

double spearman(const std::vector<double>& a, const std::vector<double>& b) {
  const std::vector<double> ra = average_ranks(a), rb = average_ranks(b);
  const double mean = 0.5 * static_cast<double>(a.size() + 1);
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += (ra[i] - mean) * (rb[i] - mean);
    aa += (ra[i] - mean) * (ra[i] - mean);
    bb += (rb[i] - mean) * (rb[i] - mean);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : nan;
}

Comparison compare(const at::Tensor& a, const at::Tensor& b, const std::optional<at::Tensor>& standard_error,
                   bool whole_is_diagonal) {
  if (a.sizes() != b.sizes()) {
    throw std::invalid_argument(fmt::format("cannot compare shape {} with shape {}", shape_text(a), shape_text(b)));
  }
  if (a.numel() == 0) throw std::invalid_argument(fmt::format("nothing to compare in shape {}", shape_text(a)));
  const at::Tensor x = finite_double(a, "A"), y = finite_double(b, "B");
  const at::Tensor difference = x - y;
  const double norm_x = x.norm().item<double>(), norm_y = y.norm().item<double>();
  const double inner = (x * y).sum().item<double>();

  Comparison result;
  result.count = x.numel();
  result.error = ratio(difference.norm().item<double>(), norm_y);
  result.best_scale = norm_x > 0 ? inner / (norm_x * norm_x) : nan;
  result.error_after_scale = norm_x > 0 ? ratio((x * result.best_scale - y).norm().item<double>(), norm_y) : nan;
  result.cosine = norm_x > 0 && norm_y > 0 ? inner / (norm_x * norm_y) : nan;
  result.worst_abs = difference.abs().max().item<double>();

  const bool is_square = x.dim() == 2 && x.size(0) == x.size(1) && !whole_is_diagonal;
  const std::vector<double> diagonal_x = to_vector(is_square ? x.diagonal() : x);
  const std::vector<double> diagonal_y = to_vector(is_square ? y.diagonal() : y);
  result.diagonal_size = static_cast<int64_t>(diagonal_x.size());
  result.diagonal_spearman = spearman(diagonal_x, diagonal_y);
  result.top = std::max<int64_t>(1, result.diagonal_size / 10);
  result.diagonal_top_overlap = top_overlap(diagonal_x, diagonal_y, result.top);

  if (standard_error) {
    if (standard_error->sizes() != a.sizes()) {
      throw std::invalid_argument(fmt::format("standard errors of shape {} for values of shape {}",
                                              shape_text(*standard_error), shape_text(a)));
    }
    result.in_bars = bar_difference(difference, finite_double(*standard_error, "the standard errors"));
  }
  return result;
}

nlohmann::json to_json(const Comparison& c) {
  nlohmann::json bars = nullptr;
  if (c.in_bars) {
    bars = {{"max", json_number(c.in_bars->max)}, {"rms", json_number(c.in_bars->rms)}, {"count", c.in_bars->count}};
  }
  return {{"count", c.count},
          {"error", json_number(c.error)},
          {"best_scale", json_number(c.best_scale)},
          {"error_after_scale", json_number(c.error_after_scale)},
          {"cosine", json_number(c.cosine)},
          {"worst_abs", json_number(c.worst_abs)},
          {"diagonal_size", c.diagonal_size},
          {"diagonal_spearman", json_number(c.diagonal_spearman)},
          {"top", c.top},
          {"diagonal_top_overlap", json_number(c.diagonal_top_overlap)},
          {"in_bars", bars}};
}

at::Tensor read_matrix(const std::string& path) {
  std::string file = path, name;
  std::error_code error;
  const size_t colon = path.rfind(':');
  if (!std::filesystem::exists(path, error) && colon != std::string::npos) {
    file = path.substr(0, colon);
    name = path.substr(colon + 1);
  }
  const std::string extension = std::filesystem::path(file).extension().string();
  if (extension == ".safetensors") return read_safetensors(file, name);
  if (!name.empty()) {
    throw std::invalid_argument(fmt::format("{}: FILE:TENSOR is for .safetensors files only", path));
  }
  if (extension == ".pt" || extension == ".pth") return read_pt(file);
  if (extension == ".npy") return read_npy(file);
  throw std::invalid_argument(fmt::format("{}: a .pt, .npy or .safetensors file is needed", path));
}

}  // namespace hesper
