#include "run/method_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "run/krylov.h"

namespace hesper {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();
// One doubling's exponent, carried far, promises more than it keeps.
constexpr double kMostDecay = 1;

struct Forecast {
  std::string name;
  std::optional<DiagMethod> method;
  double cost = kInfinite, error = kInfinite;
};

/// D of the method with the least noise, where it stands above that; else what a basis knows of it (costs come out
/// somewhat high), or the noise itself ("at least").
double square_of(const MethodPilot& p) {
  double noise = kInfinite, square = 0;
  for (const Sampled* s : {&p.hutchinson, p.split ? &*p.split : nullptr, p.krylov ? &*p.krylov : nullptr}) {
    if (!s) continue;
    const double its = s->variance / static_cast<double>(s->samples);
    if (its < noise) noise = its, square = s->square;
  }
  if (square > noise) return square;
  return p.krylov && p.krylov->known > 0 ? p.krylov->known : noise;
}

}  // namespace

MethodChoice choose_method(const MethodPilot& p, int64_t products, std::optional<double> goal) {
  const double square = square_of(p), m = static_cast<double>(products), b = static_cast<double>(p.windows);
  const auto relative = [&](double variance, double samples) {
    return variance <= 0 ? 0 : samples <= 0 ? kInfinite : std::sqrt(variance / (samples * b * square));
  };
  const auto needed = [&](double variance) { return variance <= 0 ? 0 : variance / (b * *goal * *goal * square); };
  const auto sampled = [&](const char* name, DiagMethod method, double variance, double cost) {
    Forecast f{name, method, m, relative(variance, m / cost)};
    if (goal) f.cost = cost * std::max(needed(variance), static_cast<double>(least_probes)), f.error = *goal;
    return f;
  };
  std::vector<Forecast> all = {sampled("hutchinson", DiagMethod::hutchinson, p.hutchinson.variance, 1)};
  if (p.split) all.push_back(sampled("split", DiagMethod::split, p.split->variance, p.split_cost));
  if (p.krylov) {
    const double a = std::min(p.decay, kMostDecay), r0 = static_cast<double>(p.basis);
    const double spent = r0 + static_cast<double>(p.block), n0 = goal ? needed(p.krylov->variance) : kInfinite;
    const double r = std::max(r0, static_cast<double>(best_basis(a, p.basis, m - spent, n0)));
    const double variance = p.krylov->variance * std::pow(r0 / r, a), start = spent + r - r0;
    Forecast f{"krylov", DiagMethod::krylov, m, relative(variance, m - start)};
    if (goal) f.cost = start + std::max(needed(variance), static_cast<double>(least_probes)), f.error = *goal;
    all.push_back(f);
  }
  if (goal || p.exact <= m) all.push_back({"exact", {}, p.exact, 0});

  const auto better = [&](const Forecast& x, const Forecast& y) { return goal ? x.cost < y.cost : x.error < y.error; };
  const Forecast best = *std::min_element(all.begin(), all.end(), better);
  MethodChoice out;
  out.method = best.method, out.cost = best.cost, out.error = best.error;
  out.sample_cost = best.method == DiagMethod::split ? p.split_cost : 1;
  out.record["method"] = best.name;
  std::string numbers;
  for (const Forecast& f : all) {
    const double shown = goal ? f.cost : f.error;
    const std::string text = !std::isfinite(shown) ? "does not fit"
                             : goal                ? fmt::format("{:.3g}", shown)
                                                   : fmt::format("{:.3g}%", 100 * shown);
    numbers += fmt::format("{}{} {}", numbers.empty() ? "" : ", ", f.name, text);
    out.record["forecasts"][f.name] = {{"products", std::isfinite(f.cost) ? nlohmann::json(f.cost) : nlohmann::json()},
                                       {"error", std::isfinite(f.error) ? nlohmann::json(f.error) : nlohmann::json()}};
  }
  out.why = goal ? fmt::format("{}: products a window to {:g}%: {}", best.name, 100 * *goal, numbers)
                 : fmt::format("{}: error forecast of {} products a window: {}", best.name, products, numbers);
  out.record["why"] = out.why;
  const auto note = [](const Sampled& s) {
    return nlohmann::json{{"variance", s.variance}, {"square", s.square}, {"known", s.known}, {"samples", s.samples}};
  };
  out.record["pilot"] = {{"hutchinson", note(p.hutchinson)}};
  if (p.split) out.record["pilot"]["split"] = note(*p.split), out.record["pilot"]["split_cost"] = p.split_cost;
  if (p.krylov) {
    out.record["pilot"]["krylov"] = note(*p.krylov);
    out.record["pilot"]["basis"] = p.basis;
    out.record["pilot"]["decay"] = p.decay;
  }
  return out;
}

}  // namespace hesper
