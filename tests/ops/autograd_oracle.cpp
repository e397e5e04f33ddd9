#include "ops/autograd_oracle.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops/parameters.h"

namespace hesper::test {
namespace {

/// The reverse of list().
Point split(const Tensors& all) { return {Tensors(all.begin(), all.end() - 1), all.back()}; }

/// <bars, d>, as a tensor that can be differentiated.
Tensor along(const Point& bars, const Point& d) {
  Tensor s = (bars.theta * d.theta).sum();
  for (size_t i = 0; i < d.x.size(); ++i) s = s + (bars.x[i] * d.x[i]).sum();
  return s;
}

}  // namespace

Tensors gradients(const Tensor& s, const Tensors& leaves, bool graph) {
  Tensors out(leaves.size());
  if (s.requires_grad()) out = torch::autograd::grad({s}, leaves, {}, true, graph, true);
  for (size_t i = 0; i < out.size(); ++i)
    if (!out[i].defined()) out[i] = at::zeros_like(leaves[i]);
  return out;
}

Point leaf(const Point& p) {
  Point out;
  for (const Tensor& x : p.x) out.x.push_back(x.detach().clone().requires_grad_(true));
  out.theta = p.theta.detach().clone().requires_grad_(true);
  return out;
}

Tensor Oracle::plain(const Point& at_) const {
  const Parameters parameters(place(world, at_.theta), at::kDouble, at::kCPU);
  return op.plain({tokens, parameters, world.selection, at::kDouble, false}, at_.x);
}

Point Oracle::adjoint(const Point& at_, const Tensor& y_bar) const {
  const at::AutoGradMode on(true);
  const Point p = leaf(at_);
  return split(gradients((plain(p) * y_bar).sum(), list(p), false));
}

Tensor Oracle::tangent(const Point& at_, const Point& d) const {
  const at::AutoGradMode on(true);
  const Point p = leaf(at_);
  const Tensor y = plain(p), z = at::zeros_like(y).requires_grad_(true);
  const Point bars = split(gradients((y * z).sum(), list(p), true));
  return gradients(along(bars, d), {z}, false)[0].detach();
}

Point Oracle::adjoint_tangent(const Point& at_, const Tensor& y_bar, const Point& d, const Tensor& y_bar_dot) const {
  const at::AutoGradMode on(true);
  const Point p = leaf(at_);
  const Tensor y = plain(p);
  const Point bars = split(gradients((y * y_bar).sum(), list(p), true));
  return split(gradients(along(bars, d) + (y * y_bar_dot).sum(), list(p), false));
}

}  // namespace hesper::test
