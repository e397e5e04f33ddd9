#include "run/scope_pilot.h"

#include <algorithm>
#include <cmath>

namespace hesper {

std::vector<double> pilot_variances(const DiagJob& job, const ProbeGroup& group, PrimalBatches& primal,
                                    const Parameters& parameters, int64_t count, const RunForm& form) {
  const Tape own = narrowed(primal.tape(0), job.program, group.selection);
  const TangentPass pass(job.program, parameters, group.selection, own);
  DiagonalMoments moments(group.selection.size(), 1);
  moments.begin_visit(0);
  for (int64_t k = 0; k < count; k += form.directions)
    moments.add(
        draw(job, pass, group.selection, 0, 0, int64_t{pilot_probes} + k, std::min(form.directions, count - k), form)
            .z);
  const DiagonalBars bars = moments.bars();
  std::vector<double> out;
  for (const SelectedPart& part : group.selection.parts())
    out.push_back(static_cast<double>(count) * bars.probe.narrow(0, part.begin, part.size).sum().item<double>());
  return out;
}

bool pilot_says_joint(const DiagJob& job, PrimalBatches& primal, const Parameters& parameters, const RunForm& form,
                      nlohmann::json& note) {
  const std::vector<ProbeGroup> together = probe_groups(job.selection, true, job.program),
                                alone = probe_groups(job.selection, false, job.program);
  const auto variances = [&](const ProbeGroup& group) {
    return pilot_variances(job, group, primal, parameters, least_probes, form);
  };
  const std::vector<double> joint = variances(together[0]);
  double log_ratio = 0, layers = 0;
  for (size_t i = 0; i < alone.size(); ++i) {
    const double one = variances(alone[i])[0];
    if (one > 0 && joint[i] > 0) log_ratio += std::log(joint[i] / one);
    layers += direction_flops(job, alone[i].selection);
  }
  const double variance = std::exp(log_ratio / static_cast<double>(alone.size()));
  const double cost = direction_flops(job, job.selection.selection) / layers;
  note = {{"probes", least_probes}, {"joint_to_layer_variance", variance}, {"joint_to_layer_cost", cost}};
  return variance * cost < 1;
}

}  // namespace hesper
