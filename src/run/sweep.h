#pragma once
// How a result settles, in one run: distances over growing numbers of windows, errors over growing numbers of probes.
// The points are prefixes of the run's ledger: each equals the run with so many windows, or probes, by itself.
#include <optional>
#include <string>
#include <vector>

#include "run/diag.h"

namespace hesper {

/// One quantity at every point, all relative to SweepResult::norm.
struct SweepColumn {
  std::string name;                 // in the .csv
  std::string legend;               // in the picture
  std::vector<double> values;       // NaN where there is none
  std::vector<double> errors = {};  // standard errors of the values, or empty
};

struct SweepResult : RunOutcome {
  std::vector<int64_t> points;  // windows or probes: 1, 2, 4, .. and all of them
  std::vector<SweepColumn> columns;
  double norm = 0;                                  // what distances and errors are divided by
  std::string norm_of;                              // in words
  nlohmann::json notes = nlohmann::json::object();  // for the record
};

// Over windows, columns (b all windows, p those of a point; m_p the mean over the first p):
//   distance           |m_p - m_b|, whose windows are among all: low near b
//   expected_distance  sqrt(1/p - 1/b) of the spread: what it is for independent windows
//   disjoint_sets      between two means over p windows each that share none, / sqrt 2, root mean square over all pairs
//                      of such sets: the error of m_p; its standard error where there are two pairs
//   window_error       spread / sqrt p: the same for independent windows, from the spread of all b; its standard error
//                      from that of the squared distances of neighbouring windows
//   probe_error        of m_p, from probes (diagonals with probes only, where it is part of all the others)
// norm: |m_b|, of diagonals with probes without their noise, sqrt(|m_b|^2 - sum of probe^2), where that is positive.

/// Of the exact block of options.curvatures[0], the only one. Throws what compute_exact throws; std::invalid_argument
/// for fewer than 2 windows, std::runtime_error where the mean over all windows is zero.
SweepResult sweep_exact(const Model& model, const Selection& selection, const Windows& windows,
                        const ExactOptions& options, const RunControl& control = {});
Plan plan_sweep_exact(const Model& model, const Selection& selection, const Windows& windows,
                      const ExactOptions& options);

/// What a sweep takes the diagonal of one tensor by.
struct DiagSweep {
  DiagOptions options;                     // no rule; hutchinson or split
  bool exact = false;                      // over windows: no probes
  std::optional<ResolvedSelection> truth;  // over probes: entries whose exact diagonal errors are measured against
};

/// Of the diagonal of the one selected tensor. Throws what compute_diag and compute_exact_diag throw; as sweep_exact.
SweepResult sweep_diag_over_windows(const Model& model, const ResolvedSelection& selection, const Windows& windows,
                                    const DiagSweep& sweep, const RunControl& control = {});

// Over probes, columns (K all probes of a window, k those of a point), over the entries of the truth where there is
// one:
//   true_error         |d_k - truth|                                               (with a truth)
//   distance           |d_k - d_K|, whose probes are among all: low near K         (without)
//   expected_distance  sqrt(1/k - 1/K) of the spread: what it is in expectation    (without)
//   probe_error        the probe bar of d_k, from its own probes; k >= 2
//   inverse_root       the last bar's line, bar_K sqrt(K/k)
// norm: of the truth; without, sqrt(|d_K|^2 - sum of probe^2), where that is positive, else |d_K|.

/// Against the exact diagonal of these windows. Throws as above; std::invalid_argument for fewer than 2 probes and for
/// a truth outside the selection.
SweepResult sweep_diag_over_probes(const Model& model, const ResolvedSelection& selection, const Windows& windows,
                                   const DiagSweep& sweep, const RunControl& control = {});

/// Plans of the two: of the estimate, or of the exact diagonals. Throw what the sweeps throw before they begin.
Plan plan_sweep_over_windows(const Model& model, const ResolvedSelection& selection, const Windows& windows,
                             const DiagSweep& sweep);
Plan plan_sweep_over_probes(const Model& model, const ResolvedSelection& selection, const Windows& windows,
                            const DiagSweep& sweep);

}  // namespace hesper
