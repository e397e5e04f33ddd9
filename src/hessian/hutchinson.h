#pragma once
// Hutchinson's samples of a diagonal: z = v * (H v), v of independent +-1; E z = diag H for any H, Var z_i =
// sum_{j != i} h_ij^2.
#include "hessian/probes.h"
#include "tangent/tangent_pass.h"

namespace hesper {

/// v (K, n) of +-1 over `selection`; place: the window's in the pass's tape; recompute: as of TangentPass::product.
/// -> z (K, n) fp64
inline at::Tensor hutchinson_samples(const TangentPass& pass, const Selection& selection, const at::Tensor& v,
                                     int64_t place, Curvature kind, bool recompute = false) {
  const at::Tensor z = pass.product(Directions::dense(selection, v, v.scalar_type()), place, kind, recompute);
  return z.mul_(v.to(z.device()));
}

}  // namespace hesper
