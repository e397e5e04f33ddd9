#pragma once
// diag H = diag G + diag R, each by its own samples with their own bars (G positive, so its relative error is at most
// sqrt(2/m) from m samples, whatever the coupling of the weights; R by Hutchinson's estimator):
//   g = w_bar^2, E g = diag G     (adjoint_start.h: factor or labels)
//   r = v * (R v), E r = diag R   v of independent +-1
// The two draw on different streams of random numbers, so their variances add.
#include "hessian/hutchinson.h"
#include "ops/adjoint_start.h"

namespace hesper {

/// The Gauss-Newton part: (K, n) fp64 for the probes of `start`; place: the window's in the pass's tape.
inline at::Tensor gauss_newton_samples(const TangentPass& pass, const AdjointStart& start, int64_t place) {
  return pass.adjoint(start, place).square_();
}

/// The residual part for the same window and probes: (K, n) fp64; device: the pass's; recompute: as of
/// TangentPass::product.
inline at::Tensor residual_samples(const TangentPass& pass, const Selection& selection, const AdjointStart& start,
                                   int64_t place, at::ScalarType precision, at::Device device, bool recompute = false) {
  const at::Tensor v =
      rademacher(selection, start.seed, start.window, start.first_probe, start.count, precision, device);
  return hutchinson_samples(pass, selection, v, place, Curvature::residual, recompute);
}

}  // namespace hesper
