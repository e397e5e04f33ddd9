#include "hessian/deflation.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hesper {

using at::Tensor;

Deflation::Deflation(int64_t most, int64_t n, at::TensorOptions options) : q_(at::empty({most, n}, options)) {}

Tensor Deflation::project(const Tensor& x) const {
  const Tensor working = x.to(q_.options());
  if (size_ == 0) return working;
  const Tensor q = q_.narrow(0, 0, size_);
  return working.addmm(working.mm(q.t()), q, 1, -1);
}

// Twice: projection, then the eigenvectors of the Gram matrix in fp64. Once leaves what rounding of large parts inside
// Q and of a badly conditioned w leave. Directions of w that are short beside its longest are known less well by as
// much (and the Gram matrix squares the ratio): below 1e-6 they are not worth a product.
Tensor Deflation::next_block(const Tensor& w) {
  const double rounding =
      q_.scalar_type() == at::kDouble ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
  Tensor y = w.to(q_.options());
  for (int pass = 0; pass < 2; ++pass) {
    y = project(y);
    const Tensor wide = y.to(at::kDouble);
    if (wide.size(0) == 0) break;
    const auto [ascending, vectors] = at::linalg_eigh(wide.mm(wide.t()).cpu());
    const Tensor squares = ascending.flip(0), u = vectors.flip(1);
    if (pass == 0 && size_ == 0) scale_ = squares[0].item<double>();
    const double shortest = std::max(std::pow(100 * rounding, 2) * scale_, 1e-12 * squares[0].item<double>());
    const double least = pass == 0 ? shortest : 0.5;
    const Tensor kept = squares.gt(least).nonzero().flatten().slice(0, 0, room());
    const Tensor factor = u.index_select(1, kept).div_(squares.index_select(0, kept).sqrt()).to(y.device());
    y = factor.t().mm(wide).to(q_.options());
  }
  return y;
}

Deflation::Known Deflation::known(const Tensor& block, int64_t first, const Tensor& h) const {
  const Tensor before = project(h), after = before.addmm(h.to(q_.options()).mm(block.t()), block, 1, -1);
  const Tensor mine = block.narrow(0, first, h.size(0));
  return {mine.to(at::kDouble).mul(before + after).sum(0), after};
}

void Deflation::join(const Tensor& block) {
  q_.narrow(0, size_, block.size(0)).copy_(block);
  size_ += block.size(0);
}

Tensor deflated_samples(const Deflation& deflation, const TangentPass& pass, const Selection& selection,
                        const Tensor& v, int64_t place, Curvature kind, bool recompute) {
  const Tensor inside = deflation.project(v);
  const Tensor product =
      pass.product(Directions::dense(selection, inside, inside.scalar_type()), place, kind, recompute);
  return deflation.project(product).to(at::kDouble).mul_(v.to(product.device()));
}

}  // namespace hesper
