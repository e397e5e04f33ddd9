#pragma once
// Diagonals of several tensors one after the other, each by a run of its own: where each has its own method (auto) or
// keeps a basis of its own (krylov).
#include "run/method_choice.h"

namespace hesper {

/// choices: one a tensor, or none: all by options.method. before: the diagonals that are done, and products and seconds
/// spent so far; the snapshots', where there are any. Throws what compute_diag throws.
DiagonalResult compute_in_turn(const Model& model, const ResolvedSelection& selection,
                               const std::vector<UnitSums>& sums, const Windows& windows, const DiagOptions& options,
                               const std::vector<MethodChoice>& choices, const RunControl& control,
                               Snapshots::Before& before);

/// The parts of a run: one tensor each.
struct OneTensor {
  ResolvedSelection selection;
  std::vector<UnitSums> sums;
};
std::vector<OneTensor> one_by_one(const ResolvedSelection& selection, const std::vector<UnitSums>& sums);

}  // namespace hesper
