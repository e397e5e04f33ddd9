#pragma once
// What both kinds of diagonal runs need before they begin: plan requests, weights, the parts of a selection.
#include "model/program.h"
#include "run/diag.h"

namespace hesper {

/// A request for `selection` (of the tensors) with what a diagonal keeps beside the passes.
PlanRequest diag_request(const Program& program, const Model& model, const Selection& selection,
                         const std::vector<UnitSums>& sums, const Windows& windows, const EngineOptions& options);

/// Probes extend over each of these: every tensor alone, or all of them.
struct ProbeGroup {
  Selection selection;          // on the device
  std::vector<size_t> tensors;  // of the whole selection; in `selection` one after another
};
std::vector<ProbeGroup> probe_groups(const ResolvedSelection& selection, bool joint, const Program& program);

/// Plan of a run with these groups, and with how many vectors the basis of the largest may have (krylov only). Throws
/// std::invalid_argument where the method contradicts the other options.
struct GroupPlan : Plan {
  int64_t basis = 0;
};
GroupPlan plan_groups(const Program& program, const Model& model, const ResolvedSelection& selection,
                      const std::vector<ProbeGroup>& groups, const std::vector<UnitSums>& sums, const Windows& windows,
                      const DiagOptions& options);

}  // namespace hesper
