#pragma once
// Hessian diagonals of the selected tensors over b windows: d = mean of the windows' own diagonals, by random
// samples with error bars, or exactly. All tensors share the primal passes.
//   z_sk = v_sk * (H_s v_sk)    E z_sk = diag H_s    Var (z_sk)_i = sum_{j != i} (H_s)_ij^2    v fresh for every (s, k)
// or with the Gauss-Newton part from squared adjoints (split_samples.h), whose variance is at most 2 (g_i)^2 whatever
// the couplings, and v * (R_s v) for the residual part alone.
#include <cstdint>
#include <optional>
#include <vector>

#include "model/model.h"
#include "run/diagonal_files.h"
#include "run/exact.h"
#include "run/stop_rule.h"

namespace hesper {

/// Over which weights one probe extends, and so which off-diagonal entries are its noise.
enum class ProbeScope {
  layer,      // one tensor: a product for each
  joint,      // all of them at once: one product, with the couplings between tensors as more noise
  automatic,  // a pilot compares variance times cost
};
std::string to_string(ProbeScope scope);

enum class DiagMethod {
  hutchinson,  // z = v * (H v)
  split,       // H = G + R: squares of random adjoints, whose mean is diag G, plus v * (R v)
  krylov,      // what block Lanczos finds exactly, plus v * (P H P v) for the rest (deflation.h)
  automatic,   // of each tensor the cheapest of these and the exact diagonal, by a pilot (compute_auto_diag)
};
std::string to_string(DiagMethod method);

struct DiagOptions : EngineOptions {
  DiagMethod method = DiagMethod::hutchinson;
  Curvature curvature = Curvature::hessian;
  int64_t probes = 100;  // products of each window in all stages; with a rule: at most
  std::optional<StopRule> rule;
  ProbeScope scope = ProbeScope::layer;
  uint64_t seed = 0;
};

/// Samples [first, first + K) of one tensor in one window, z (K, m) fp64, as they are made: window after window, of
/// each the probes in their order. Exact diagonals: the one of the window, (1, m).
using OnSamples = std::function<void(size_t tensor, int64_t window, int64_t first, const at::Tensor& z)>;

/// What a run will do; nothing is computed. Throws as make_plan does.
Plan plan_diag(const Model& model, const ResolvedSelection& selection, const std::vector<UnitSums>& sums,
               const Windows& windows, const DiagOptions& options);

/// sums: one a tensor of the selection. Throws what plan_diag throws, std::invalid_argument for a rule that cannot be
/// served or probes that leave a method no room, std::runtime_error where a sample is not finite (naming the window),
/// Interrupted. Several tensors by krylov are done in turn: one basis at a time.
DiagonalResult compute_diag(const Model& model, const ResolvedSelection& selection, const std::vector<UnitSums>& sums,
                            const Windows& windows, const DiagOptions& options, const RunControl& control = {},
                            const OnSamples& on_samples = {});

/// Every tensor by the method that a pilot finds cheapest (method_choice.h); throws what compute_diag throws.
DiagonalResult compute_auto_diag(const Model& model, const ResolvedSelection& selection,
                                 const std::vector<UnitSums>& sums, const Windows& windows, const DiagOptions& options,
                                 const RunControl& control = {});

/// The largest of what its methods would take.
Plan plan_auto_diag(const Model& model, const ResolvedSelection& selection, const std::vector<UnitSums>& sums,
                    const Windows& windows, const DiagOptions& options);

/// The exact diagonals of the windows (no probes, so no probe bar), by the Gram form of forward tangents:
///   an entry: the form's diagonal at its unit direction;
///   a row of a linear layer whose inputs X (T, C) span r < C directions: with Q (r, C) an orthonormal basis of the
///   span of X's rows the row's Hessian is Q^T M Q, M = Q H Q^T (r, r), so r tangents serve all C entries.
DiagonalResult compute_exact_diag(const Model& model, const ResolvedSelection& selection,
                                  const std::vector<UnitSums>& sums, const Windows& windows, const DiagOptions& options,
                                  const RunControl& control = {}, const OnSamples& on_samples = {});

/// Its plan: the Gram pass; nothing is computed.
Plan plan_exact_diag(const Model& model, const ResolvedSelection& selection, const std::vector<UnitSums>& sums,
                     const Windows& windows, const DiagOptions& options);

/// Forward tangents that one window of it takes at most, for each tensor; infinite where the pass does not fit.
struct ExactCost {
  double directions = 0, flops = 0;
};
std::vector<ExactCost> exact_costs(const Model& model, const ResolvedSelection& selection, const Windows& windows,
                                   const DiagOptions& options);

/// Sums of every tensor (unit_sums.h).
std::vector<UnitSums> unit_sums(const Model& model, const ResolvedSelection& selection, int64_t group_size);

}  // namespace hesper
