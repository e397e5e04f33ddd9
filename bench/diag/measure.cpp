#include "measure.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "run/clock.h"

namespace hesper::bench {
namespace {
using nlohmann::json;

constexpr int64_t kMeans = 8;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double squares(const at::Tensor& t) { return t.square().sum().item<double>(); }

json by_samples(const Stand& stand, const Method& method, const RowCheck& rows, const Budget& budget) {
  const int64_t k = directions_of(stand, method);
  const int64_t step = std::lcm(kMeans, k), count = (budget.samples + step - 1) / step * step;
  const at::Tensor places = stand.rows.selection.parts()[0].entries();
  std::vector<double> errors, seconds, of_means;  // squared errors of the samples; seconds a sample
  at::Tensor mean = at::zeros_like(stand.truth);
  draw(stand, method, 1, 0, k);  // warm
  for (int64_t first = 0; first < count; first += k) {
    const Clock::time_point begin = Clock::now();
    const at::Tensor z = draw(stand, method, 0, first, k);
    seconds.push_back(seconds_since(begin) / static_cast<double>(k));
    const at::Tensor away = z.index_select(1, places) - stand.truth;
    for (int64_t i = 0; i < k; ++i) {
      errors.push_back(squares(away[i]));
      mean.add_(away[i]);
      if (static_cast<int64_t>(errors.size()) % (count / kMeans) != 0) continue;
      of_means.push_back((mean.norm() / stand.truth.norm()).item<double>() * static_cast<double>(kMeans) /
                         static_cast<double>(count));
      mean.zero_();
    }
  }
  const double norm = squares(stand.truth), drawn = static_cast<double>(count);
  double one = 0, spread = 0;  // mean square error of a sample, relative, and its standard error
  for (const double e : errors) one += e / norm / drawn;
  for (const double e : errors) spread += (e / norm - one) * (e / norm - one);
  spread = std::sqrt(spread / (drawn * (drawn - 1)));
  const double bias = method.balanced ? rows.bias : 0, variance = std::max(0.0, one - bias * bias);
  const double products = products_of_a_sample(stand, method), each = median(seconds);
  json out = {{"samples", count},
              {"directions", k},
              {"seconds_a_sample", each},
              {"products_a_sample", products},
              {"one_sample_error", std::sqrt(one)},
              {"one_sample_error_standard_error", spread / (2 * std::sqrt(one))},
              {"bias", bias},
              {"means",
               {{"samples", count / kMeans},
                {"median", median(of_means)},
                {"lowest", *std::min_element(of_means.begin(), of_means.end())},
                {"highest", *std::max_element(of_means.begin(), of_means.end())},
                {"law", std::sqrt(bias * bias + variance * static_cast<double>(kMeans) / drawn)}}}};
  for (const double error : kErrors) {
    json& reach = out["reach"][say_error(error)];
    // What a biased method would need without its bias, for a gain that it does not inflate.
    out["without_bias"][say_error(error)] = stand.primal_seconds + std::ceil(variance / (error * error)) * each;
    const double left = error * error - bias * bias;
    if (left <= 0) continue;
    const double m = std::max(1.0, std::ceil(variance / left));
    reach = {{"seconds", stand.primal_seconds + m * each}, {"products", m * products}, {"extrapolated", m > drawn}};
  }
  return out;
}

json by_runs(const Stand& stand, const Method& method, const Budget& budget) {
  struct Point {
    double error, seconds, products;
  };
  std::vector<Point> points;
  json out = {{"seeds", budget.seeds}};
  const at::Tensor places = stand.rows.selection.parts()[0].entries();
  const std::vector<UnitSums> sums = unit_sums(*stand.model, stand.layer, 128);
  for (int64_t probes = 32; probes <= budget.probes; probes *= 2) {
    std::vector<double> errors, seconds, products;
    for (int64_t seed = 0; seed < budget.seeds; ++seed) {
      DiagOptions options = run_options();
      options.method = method.method;
      options.probes = probes;
      options.seed = static_cast<uint64_t>(seed);
      const DiagonalResult r = compute_diag(*stand.model, stand.layer, sums, stand.windows, options);
      const at::Tensor d = r.tensors[0].entries.mean.index_select(0, places);
      errors.push_back(((d - stand.truth).norm() / stand.truth.norm()).item<double>());
      seconds.push_back(r.seconds);
      products.push_back(static_cast<double>(r.products));
    }
    points.push_back({median(errors), median(seconds), median(products)});
    out["runs"].push_back({{"probes", probes},
                           {"error", points.back().error},
                           {"lowest", *std::min_element(errors.begin(), errors.end())},
                           {"highest", *std::max_element(errors.begin(), errors.end())},
                           {"seconds", points.back().seconds},
                           {"products", points.back().products}});
    if (points.back().error <= *std::rbegin(kErrors)) break;
  }
  for (const double error : kErrors) {
    json& reach = out["reach"][say_error(error)];
    for (size_t i = 0; i < points.size() && reach.is_null(); ++i) {
      if (points[i].error > error) continue;
      const Point &b = points[i], &a = points[i == 0 ? 0 : i - 1];
      const double share = i == 0 ? 1 : std::log(error / a.error) / std::log(b.error / a.error);
      const auto between = [&](double x, double y) { return x * std::pow(y / x, share); };
      reach = {{"seconds", between(a.seconds, b.seconds)},
               {"products", between(a.products, b.products)},
               {"extrapolated", false}};
    }
    if (!reach.is_null()) continue;
    const Point& last = points.back();
    const double times = (last.error / error) * (last.error / error);
    reach = {{"seconds", last.seconds * times}, {"products", last.products * times}, {"extrapolated", true}};
  }
  return out;
}

json by_rows(const Stand& stand, const RowCheck& rows) {
  const double all = static_cast<double>(stand.shape()[0]), tangents = static_cast<double>(rows.directions);
  const double products =
      tangents * pass_flops(stand, Pass::gram, rows.directions) / pass_flops(stand, Pass::two_pass, 16);  // of a row
  json out = {{"directions", rows.directions}, {"seconds_a_row", rows.seconds}};
  for (const double error : kErrors)
    out["reach"][say_error(error)] = {{"seconds", stand.primal_seconds + all * rows.seconds},
                                      {"products", all * products},
                                      {"extrapolated", stand.shape()[0] > rows.rows}};
  return out;
}

}  // namespace

std::string say_error(double error) { return fmt::format("{:g}%", 100 * error); }

RowCheck row_check(const json& layer) {
  return {layer["checked_rows"], layer["bias_of_balanced_signs"], layer["seconds_a_row"], layer["tangents_a_row"],
          layer["checked_rows_against_truth"]};
}

json describe(const Stand& stand, const RowCheck& rows) {
  return {{"layer", stand.what.name()},
          {"shape", stand.shape()},
          {"truth_rows", stand.rows.selection.parts()[0].rows.numel()},
          {"norm", stand.truth.norm().item<double>()},
          {"negative_share", stand.truth.lt(0).to(at::kDouble).mean().item<double>()},
          {"primal_seconds", stand.primal_seconds},
          {"checked_rows", rows.rows},
          {"bias_of_balanced_signs", rows.bias},
          {"seconds_a_row", rows.seconds},
          {"tangents_a_row", rows.directions},
          {"checked_rows_against_truth", rows.mismatch}};
}

json measure(const Stand& stand, const Method& method, const RowCheck& rows, const Budget& budget) {
  json out = method.kind == Method::Kind::samples ? by_samples(stand, method, rows, budget)
             : method.kind == Method::Kind::runs  ? by_runs(stand, method, budget)
                                                  : by_rows(stand, rows);
  out["method"] = method.name;
  return out;
}

}  // namespace hesper::bench
