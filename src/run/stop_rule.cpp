#include "run/stop_rule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace hesper {
namespace {

const char* unit_of(StopOf of) { return of == StopOf::rows ? "row" : of == StopOf::columns ? "column" : "layer"; }

DiagonalBars watched(StopOf of, const DiagonalBars& entries, const DiagonalBars& sums, const UnitSums& units) {
  if (of == StopOf::diagonal) return entries;
  const SumRun& run = *units.find(unit_of(of));
  return sums.slice(run.begin, run.begin + run.count);
}

RelativeBars bars_of(StopOf of, const DiagonalBars& entries, const DiagonalBars& sums, const UnitSums& units) {
  return relative_bars(watched(of, entries, sums, units));
}

/// What the probe bar must come down to: X of the windows; of the corpus the larger of what X leaves beside the data
/// bar and a third of the data bar.
double goal_of(const StopRule& rule, const RelativeBars& bars) {
  if (rule.target == DiagTarget::windows || !bars.data.known()) return rule.rel_error;
  const double left = rule.rel_error * rule.rel_error - bars.data.value * bars.data.value;
  return std::max(left > 0 ? std::sqrt(left) : 0, bars.data.value / 3);
}

}  // namespace

Verdict judge(const StopRule& rule, const DiagonalBars& entries, const DiagonalBars& sums, const UnitSums& units,
              int64_t most) {
  const RelativeBars bars = bars_of(rule.of, entries, sums, units);
  const Bar& watched = rule.target == DiagTarget::windows ? bars.probe : bars.total;
  const int64_t m = entries.samples;
  Verdict v;
  v.bar = watched.known() ? watched.value : 0;
  if (m >= least_probes) {
    if (watched.known() && watched.value <= rule.rel_error) {
      v.stop = true, v.reason = "reached";
    } else if (rule.target == DiagTarget::corpus && bars.probe.known() && bars.data.known() &&
               bars.probe.value <= bars.data.value / 3) {
      v.stop = true;
      v.reason =
          fmt::format("not reached: the data error is {:.3g}%, which only more windows reduce", 100 * bars.data.value);
    }
  }
  if (!v.stop && most - m < 2) {
    v.stop = true;
    v.reason = fmt::format("not reached with {} probes: {}", m, say_relative(watched));
  }
  if (v.stop) return v;
  const double ratio = bars.probe.known() ? bars.probe.value / goal_of(rule, bars) : 2;
  const double needed = 1.05 * static_cast<double>(m) * ratio * ratio;
  const auto extra = static_cast<int64_t>(std::min(needed, 2.0 * static_cast<double>(m))) - m;
  v.more = std::clamp<int64_t>(std::min(extra, most - m), 2, most - m);
  return v;
}

double needed_probes(const StopRule& rule, const DiagonalBars& entries, const DiagonalBars& sums,
                     const UnitSums& units) {
  const RelativeBars bars = bars_of(rule.of, entries, sums, units);
  if (!bars.probe.known()) return std::numeric_limits<double>::infinity();
  const double ratio = bars.probe.value / goal_of(rule, bars);
  return static_cast<double>(entries.samples) * ratio * ratio;
}

WatchedSquares watched_squares(StopOf of, const DiagonalBars& entries, const DiagonalBars& sums,
                               const UnitSums& units) {
  const DiagonalBars bars = watched(of, entries, sums, units);
  return {bars.probe.sum().item<double>(), bars.mean.square().sum().item<double>()};
}

void check_rule(const StopRule& rule, const UnitSums& units, const std::string& tensor, int64_t windows) {
  if (rule.of != StopOf::diagonal && !units.find(unit_of(rule.of)))
    throw std::invalid_argument(fmt::format("--of {}: the selection in {} is no matrix", to_string(rule.of), tensor));
  if (rule.target == DiagTarget::corpus && windows < 2)
    throw std::invalid_argument(
        fmt::format("--target corpus: needs at least 2 windows to see their spread, there is {}", windows));
}

std::string to_string(StopOf of) {
  switch (of) {
    case StopOf::rows:
      return "rows";
    case StopOf::columns:
      return "columns";
    case StopOf::trace:
      return "trace";
    default:
      return "diagonal";
  }
}

std::string to_string(DiagTarget target) { return target == DiagTarget::windows ? "windows" : "corpus"; }

}  // namespace hesper
