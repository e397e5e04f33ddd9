#include "run/pilot.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>

#include "hessian/probes.h"
#include "model/build_program.h"
#include "run/clock.h"
#include "run/primal_batches.h"
#include "run/streamed_weights.h"
#include "tangent/tangent_pass.h"

namespace hesper {

Pilot run_pilot(const Model& model, const Selection& selection, const Windows& windows, const EngineOptions& options,
                const Plan& plan) {
  const at::NoGradGuard no_grad;
  const Program program = build_program(model.config(), windows.ids.size(1), options.devices());
  const Selection here = selection.to(program.parameter_devices());
  const Parameters parameters = make_parameters(model, program, options.device, plan);
  RunForm form = plan;
  form.batch = 1;
  PrimalBatches primal(program, parameters, here, windows, form);
  const Tape& tape = primal.tape(0);
  const TangentPass pass(program, parameters, here, tape);
  const bool gram = plan.pass == Pass::gram;
  const int64_t k = gram ? std::min(plan.directions, here.size()) : plan.directions;
  const Directions v = gram ? Directions::units(here, 0, k, plan.precision)
                            : Directions::dense(here, rademacher(here, 0, 0, 0, k, plan.precision), plan.precision);
  Pilot out{primal.seconds(), std::numeric_limits<double>::infinity()};
  for (int i = 0; i < 2; ++i) {
    const Clock::time_point begin = Clock::now();
    const Tensor result =
        gram ? pass.second_order(v, 0).gauss_newton : pass.product(v, 0, Curvature::hessian, plan.recompute);
    result.cpu();  // waits for a device
    out.product = std::min(out.product, seconds_since(begin) / static_cast<double>(k));
  }
  return out;
}

}  // namespace hesper
