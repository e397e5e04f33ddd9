#pragma once
// Whether one probe should extend over all tensors or over one: a pilot on the first window.
#include "run/diag_estimate.h"

namespace hesper {

/// Joint or layer by the smaller (variance x cost), the variance's ratio a geometric mean over the tensors; `note` gets
/// both ratios. Its probes enter no result.
bool pilot_says_joint(const DiagJob& job, PrimalBatches& primal, const Parameters& parameters, const RunForm& form,
                      nlohmann::json& note);

/// Sum over entries of the variance of one sample of window 0, of each tensor, from `count` pilot probes.
std::vector<double> pilot_variances(const DiagJob& job, const ProbeGroup& group, PrimalBatches& primal,
                                    const Parameters& parameters, int64_t count, const RunForm& form);

}  // namespace hesper
