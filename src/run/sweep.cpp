#include "run/sweep.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <stdexcept>

#include "hessian/window_prefixes.h"
#include "run/exact_files.h"
#include "run/result_files.h"

namespace hesper {
namespace {

using at::Tensor;
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

void require_points(const char* flag, int64_t count, const char* things) {
  if (count < 2) throw std::invalid_argument(fmt::format("{} {}: a sweep needs at least 2 {}", flag, count, things));
}

double root(double square, double norm) { return std::sqrt(std::max(0.0, square)) / norm; }

struct MeanSquare {
  double mean = 0, error = kNone;  // standard error, from 2 on
};
MeanSquare mean_of(const std::vector<double>& squares) {
  const auto count = static_cast<double>(squares.size());
  MeanSquare out;
  for (const double x : squares) out.mean += x / count;
  if (squares.size() < 2) return out;
  double spread = 0;
  for (const double x : squares) spread += (x - out.mean) * (x - out.mean);
  out.error = std::sqrt(spread / (count * (count - 1)));
  return out;
}

/// What the windows' slices say together: squares of slices add.
struct Squares {
  std::vector<double> distance;               // of every point
  std::vector<std::vector<double>> disjoint;  // per level
  double norm = 0, sum = 0;

  explicit Squares(int64_t b) : distance(doublings(b).size(), 0) {}
  void add(const WindowPrefixes& slice, const std::vector<int64_t>& points) {
    norm += slice.squared_norm();
    sum += slice.sum_of_squares();
    for (size_t i = 0; i + 1 < points.size(); ++i) distance[i] += slice.squared_distance(points[i]);
    disjoint.resize(slice.disjoint().size());
    for (size_t level = 0; level < disjoint.size(); ++level) {
      disjoint[level].resize(slice.disjoint()[level].size(), 0);
      for (size_t i = 0; i < disjoint[level].size(); ++i) disjoint[level][i] += slice.disjoint()[level][i];
    }
  }
};

/// Fills in points, norm and columns; probe_squares: sum of probe^2 of the mean over all windows.
void settle_windows(SweepResult& out, const Squares& squares, int64_t b, std::optional<double> probe_squares) {
  const auto all = static_cast<double>(b);
  if (squares.norm == 0) throw std::runtime_error("the mean over all windows is zero: no distance is relative to it");
  const double debiased = squares.norm - probe_squares.value_or(0);
  out.points = doublings(b);
  out.norm = std::sqrt(debiased > 0 ? debiased : squares.norm);
  out.norm_of = fmt::format("mean over all {} windows{}", b,
                            !probe_squares ? ""
                            : debiased > 0 ? " less its probe noise"
                                           : ", whose probe noise is as large as the mean itself");
  const double spread = std::max(0.0, squares.sum - all * squares.norm) / (all - 1);  // of one window
  const MeanSquare neighbours = mean_of(squares.disjoint[0]);
  SweepColumn distance{"distance", "first b windows to all", {}}, expected{"expected_distance", "its expectation", {}},
      sets{"disjoint_sets", "disjoint sets of b, / \u221a2", {}, {}},
      windows{"window_error", "spread of windows, / \u221ab", {}, {}}, probes{"probe_error", "of it from probes", {}};
  nlohmann::json pairs = nlohmann::json::array();
  for (size_t i = 0; i < out.points.size(); ++i) {
    const auto p = static_cast<double>(out.points[i]);
    distance.values.push_back(root(squares.distance[i], out.norm));
    expected.values.push_back(root(spread * (1 / p - 1 / all), out.norm));
    windows.values.push_back(root(spread / p, out.norm));
    windows.errors.push_back(windows.values.back() * neighbours.error / neighbours.mean / 2);
    const bool two = 2 * out.points[i] <= b;  // a doubling then
    const MeanSquare d = two ? mean_of(squares.disjoint[i]) : MeanSquare{};
    sets.values.push_back(two ? root(d.mean, out.norm) : kNone);
    sets.errors.push_back(two && d.mean > 0 ? d.error / (2 * std::sqrt(d.mean)) / out.norm : kNone);
    pairs.push_back(two ? squares.disjoint[i].size() : 0);
    if (probe_squares) probes.values.push_back(root(*probe_squares * all / p, out.norm));
  }
  out.columns = {distance, expected, sets, windows};
  if (probe_squares) out.columns.push_back(probes);
  out.notes["pairs_of_disjoint_sets"] = pairs;
  const double true_square = squares.norm - spread / all;  // the spread of windows makes |m_b| too large
  out.notes["norm_less_spread"] = true_square > 0 ? nlohmann::json(std::sqrt(true_square)) : nlohmann::json();
}

void take(SweepResult& out, const DiagonalResult& r) {
  out.loss = r.loss;
  out.products += r.products;
  out.seconds += r.seconds;
  out.device = r.device;
  out.precision = r.precision;
  out.peak_memory = std::max(out.peak_memory, r.peak_memory);
  out.precision_error = r.precision_error;
  out.notes["plan"] = r.notes.at("plan");
}

double sum_of(const Tensor& t) { return t.sum().item<double>(); }

std::vector<UnitSums> sums_of(const Model& model, const ResolvedSelection& selection) {
  if (selection.tensors.size() != 1)
    throw std::invalid_argument(
        fmt::format("--layer: a sweep takes the diagonal of one layer, {} are selected", selection.tensors.size()));
  return unit_sums(model, selection, 128);
}

void refuse_shares(const RunControl& control, const char* why) {
  if (const std::string by = control.shared_by(); !by.empty())
    throw std::invalid_argument(fmt::format("{}: {}", by, why));
}
constexpr const char* kInOrder = "a sweep over b takes the windows in their order, in one process";

/// The caller's own memory in the plan; a GPU's plan has nothing of the CPU's.
template <class Options>
Options keeping(Options options, int64_t bytes) {
  if (options.device.is_cpu()) options.beside += bytes;
  return options;
}

DiagOptions over_windows(const ResolvedSelection& selection, const Windows& windows, const DiagSweep& sweep) {
  const int64_t n = selection.selection.size();
  return keeping(sweep.options, WindowPrefixes::bytes(n, windows.ids.size(0)) + 8 * n);
}

int64_t entries_of(const ResolvedSelection& selection, const DiagSweep& sweep) {
  return sweep.truth ? sweep.truth->selection.size() : selection.selection.size();
}

/// Moments of every point, and what is read from them in the end.
DiagOptions over_probes(const ResolvedSelection& selection, const Windows& windows, const DiagSweep& sweep) {
  const int64_t n = entries_of(selection, sweep);
  const auto points = static_cast<int64_t>(doublings(sweep.options.probes).size());
  return keeping(sweep.options, points * (DiagonalMoments::bytes(n, windows.ids.size(0)) + 8 * 3 * n));
}

/// Places (m) of the truth's entries among the selected ones.
Tensor places_of(const ResolvedSelection& truth, const ResolvedSelection& selection) {
  const SelectedPart &some = truth.selection.parts()[0], &all = selection.selection.parts()[0];
  int64_t entries = 1;
  for (const int64_t side : selection.tensors[0].shape) entries *= side;
  Tensor place = at::full({entries}, -1, at::kLong);
  place.index_copy_(0, all.entries(), at::arange(all.size));
  const Tensor out = place.index_select(0, some.entries());
  if (const int64_t outside = out.lt(0).sum().item<int64_t>(); some.parameter != all.parameter || outside > 0)
    throw std::invalid_argument(
        fmt::format("--truth: {} of its {} entries are not among the {} selected", outside, some.size, all.size));
  return out;
}

}  // namespace

Plan plan_sweep_exact(const Model& model, const Selection& selection, const Windows& windows,
                      const ExactOptions& options) {
  const int64_t n = selection.size();
  require_points("--b", windows.ids.size(0), "windows");
  return plan_exact(model, selection, windows, keeping(options, WindowPrefixes::bytes(n * n, windows.ids.size(0))));
}

SweepResult sweep_exact(const Model& model, const Selection& selection, const Windows& windows,
                        const ExactOptions& given, const RunControl& control) {
  refuse_shares(control, kInOrder);
  const int64_t b = windows.ids.size(0), n = selection.size();
  const ExactOptions options = resumed_options(given, control);
  const Plan plan = plan_sweep_exact(model, selection, windows, options);
  std::map<int64_t, WindowPrefixes> slices;  // by their first row
  RunControl inner = control;
  for (int64_t begin = 0; begin < n; begin += plan.directions) {
    const auto& slice = slices.try_emplace(begin, std::min(plan.directions, n - begin) * n, b).first->second;
    const NamedTensors own = slice.sums(fmt::format("prefixes.{}", begin));
    inner.beside.insert(inner.beside.end(), own.begin(), own.end());
  }
  const auto on_rows = [&](int64_t, int64_t begin, const Tensor& rows) { slices.at(begin).add(rows.flatten()); };
  const ExactResult r =
      compute_exact(model, selection, windows, keeping(options, WindowPrefixes::bytes(n * n, b)), inner, on_rows);
  SweepResult out;
  Squares squares(b);
  for (const auto& [begin, slice] : slices) squares.add(slice, doublings(b));
  settle_windows(out, squares, b, std::nullopt);
  out.loss = r.loss;
  out.products = r.products;
  out.seconds = r.seconds;
  out.device = options.device_names();
  out.precision = fmt::format("{} tangents, {} primal", precision_name(r.plan.precision, r.plan.products),
                              precision_name(r.plan.primal));
  out.peak_memory = r.peak_memory;
  out.precision_error = r.precision_error;
  out.notes["plan"] = plan_json(r.plan);
  return out;
}

Plan plan_sweep_over_windows(const Model& model, const ResolvedSelection& selection, const Windows& windows,
                             const DiagSweep& sweep) {
  require_points("--b", windows.ids.size(0), "windows");
  return (sweep.exact ? plan_exact_diag : plan_diag)(model, selection, sums_of(model, selection), windows,
                                                     over_windows(selection, windows, sweep));
}

SweepResult sweep_diag_over_windows(const Model& model, const ResolvedSelection& selection, const Windows& windows,
                                    const DiagSweep& sweep, const RunControl& control) {
  refuse_shares(control, kInOrder);
  const int64_t b = windows.ids.size(0), n = selection.selection.size(), m = sweep.exact ? 1 : sweep.options.probes;
  require_points("--b", b, "windows");
  WindowPrefixes prefixes(n, b);
  const Tensor window = at::zeros({n}, at::kDouble);  // sum over the probes so far
  RunControl inner = control;
  inner.beside = prefixes.sums("prefixes");
  inner.beside.emplace_back("window", window);
  const auto on_samples = [&](size_t, int64_t, int64_t first, const Tensor& z) {
    if (first == 0) window.zero_();
    for (int64_t k = 0; k < z.size(0); ++k) window.add_(z[k]);
    if (first + z.size(0) == m) prefixes.add(window.div_(static_cast<double>(m)));
  };
  const DiagonalResult r = (sweep.exact ? compute_exact_diag : compute_diag)(
      model, selection, sums_of(model, selection), windows, over_windows(selection, windows, sweep), inner, on_samples);
  SweepResult out;
  Squares squares(b);
  squares.add(prefixes, doublings(b));
  const DiagonalBars& bars = r.tensors[0].entries;
  const bool noisy = !sweep.exact && bars.probe.defined();
  settle_windows(out, squares, b, noisy ? std::optional(sum_of(bars.probe)) : std::nullopt);
  take(out, r);
  out.notes["relative_errors"] = to_json(relative_bars(bars));
  return out;
}

Plan plan_sweep_over_probes(const Model& model, const ResolvedSelection& selection, const Windows& windows,
                            const DiagSweep& sweep) {
  require_points("--probes", sweep.options.probes, "probes");
  if (sweep.truth) {
    places_of(*sweep.truth, selection);
    plan_exact_diag(model, *sweep.truth, sums_of(model, *sweep.truth), windows, sweep.options);
  }
  return plan_diag(model, selection, sums_of(model, selection), windows, over_probes(selection, windows, sweep));
}

SweepResult sweep_diag_over_probes(const Model& model, const ResolvedSelection& selection, const Windows& windows,
                                   const DiagSweep& sweep, const RunControl& control) {
  const int64_t b = windows.ids.size(0), probes = sweep.options.probes;
  require_points("--probes", probes, "probes");
  const std::vector<UnitSums> sums = sums_of(model, selection);
  SweepResult out;
  out.points = doublings(probes);
  Tensor truth, places;
  if (sweep.truth) {
    if (!control.part.whole())
      throw std::invalid_argument(
          fmt::format("{}: --truth is a run before the sweep; ranks can share both (hesper launch), parts cannot",
                      control.shared_by()));
    places = places_of(*sweep.truth, selection);
    Snapshots::Before none;
    Snapshots::Before& before = control.snapshots ? control.snapshots->before : none;
    if (before.note.is_null()) {
      RunControl first = control;
      first.more = true;
      try {
        const DiagonalResult exact =
            compute_exact_diag(model, *sweep.truth, sums_of(model, *sweep.truth), windows, sweep.options, first);
        before = {{{"seconds", exact.seconds}, {"directions", exact.products}, {"peak_memory", exact.peak_memory}},
                  {{"truth", exact.tensors[0].entries.mean}}};
      } catch (const PartDone&) {  // rank 0 has it
      }
    }
    if (!before.tensors.empty()) {
      truth = before.tensors[0].second;
      out.notes["truth"] = {{"entries", truth.numel()},
                            {"seconds", before.note.at("seconds")},
                            {"directions", before.note.at("directions")}};
      out.seconds = before.note.at("seconds"), out.products = before.note.at("directions");
      out.peak_memory = before.note.at("peak_memory");
    }
  }
  std::vector<DiagonalMoments> moments;
  RunControl inner = control;
  for (size_t i = 0; i < out.points.size(); ++i) {
    const NamedTensors own = moments.emplace_back(entries_of(selection, sweep), b).sums(fmt::format("point.{}", i));
    inner.beside.insert(inner.beside.end(), own.begin(), own.end());
  }
  const auto on_samples = [&](size_t, int64_t window, int64_t first, const Tensor& all) {
    const Tensor z = places.defined() ? all.index_select(1, places) : all;
    for (size_t i = 0; i < moments.size(); ++i) {
      if (first == 0) moments[i].begin_visit(window);
      if (const int64_t count = std::min(z.size(0), out.points[i] - first); count > 0)
        moments[i].add(z.narrow(0, 0, count));
    }
  };
  take(out, compute_diag(model, selection, sums, windows, over_probes(selection, windows, sweep), inner, on_samples));

  std::vector<DiagonalBars> bars;
  for (const DiagonalMoments& m : moments) bars.push_back(m.bars());
  const DiagonalBars& last = bars.back();
  const double noise = sum_of(last.probe), all = static_cast<double>(probes);
  const double squares = truth.defined() ? sum_of(truth.square()) : sum_of(last.mean.square()) - noise;
  out.norm = std::sqrt(squares > 0 ? squares : sum_of(last.mean.square()));
  if (out.norm == 0) throw std::runtime_error("the diagonal is zero: no error is relative to it");
  out.norm_of = truth.defined() ? fmt::format("exact diagonal at {} entries", truth.numel())
                : squares > 0   ? fmt::format("estimate with {} probes less its probe noise", probes)
                                : fmt::format("estimate with {} probes, whose noise is as large as itself", probes);
  SweepColumn error{truth.defined() ? "true_error" : "distance",
                    truth.defined() ? "error against the exact diagonal" : "first K probes to all",
                    {}},
      expected{"expected_distance", "its expectation", {}}, bar{"probe_error", "probe bar of K probes", {}},
      line{"inverse_root", "last bar's 1/\u221aK", {}};
  for (size_t i = 0; i < bars.size(); ++i) {
    const auto k = static_cast<double>(out.points[i]);
    error.values.push_back(root(sum_of((bars[i].mean - (truth.defined() ? truth : last.mean)).square()), out.norm));
    expected.values.push_back(root(noise * (all / k - 1), out.norm));
    bar.values.push_back(bars[i].probe.defined() ? root(sum_of(bars[i].probe), out.norm) : kNone);
    line.values.push_back(root(noise * all / k, out.norm));
  }
  out.columns = truth.defined() ? std::vector{error, bar, line} : std::vector{error, expected, bar, line};
  return out;
}

}  // namespace hesper
