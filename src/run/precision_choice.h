#pragma once
// The precision of tangents that serves an accepted error: tried on the spot, cheapest first.
#include <vector>

#include "model/model.h"
#include "run/plan.h"
#include "text/windows.h"

namespace hesper {

struct TangentPrecision {
  at::ScalarType working = at::kFloat;
  Products products = Products::full;
  double typical = 0;  // error against fp64, the largest met on real models (docs/performance.md)
};
/// Cheapest first. CPU: fp32, fp64; GPU: bf16, tf32, bf16x3, fp32, fp64.
const std::vector<TangentPrecision>& tangent_precisions(at::Device device);
/// The cheapest whose typical error is at most `accepted`; nothing is computed.
TangentPrecision typical_precision(double accepted, at::Device device);

struct PrecisionTrial {
  TangentPrecision precision;
  double error = 0;  // 0 for fp64, which is what the others are measured against
};
/// error(A, B) = |A - B|_F / |B|_F over 16 weights spread over the selection, their 16 x 16 block of the first window's
/// Hessian by a product (as many of its rows as one takes at once) and by the Gram pass (the larger of both), B in
/// fp64. The last trial is the choice: the first whose error is at most a quarter of `accepted` (a run meets more than
/// the trial sees), or fp64. Empty where the trial would not fit options.memory_limit.
std::vector<PrecisionTrial> try_precisions(const Model& model, const Selection& selection, const Windows& windows,
                                           const EngineOptions& options, double accepted);

}  // namespace hesper
