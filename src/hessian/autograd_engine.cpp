#include "hessian/autograd_engine.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

namespace hesper {
namespace {

/// Differentiable losses (B) of the program with its selected entries replaced by theta (n).
Tensor plain_losses(const Program& program, const Parameters& parameters, const Selection& selection,
                    const Tokens& tokens, const Tensor& theta) {
  std::vector<std::pair<int, Tensor>> replaced;
  for (const SelectedPart& part : selection.parts()) {
    const Tensor w = parameters.stored(part.parameter).to(parameters.device(), theta.scalar_type());
    const Tensor mine = theta.narrow(0, part.begin, part.size);
    replaced.emplace_back(part.parameter, w.flatten().index_copy(0, part.entries(), mine).view_as(w));
  }
  const Parameters moved = parameters.with(replaced);
  const Selection nothing;
  const Primal p{tokens, moved, nothing, theta.scalar_type(), false};
  Tensors values(program.values());
  for (const auto& op : program.ops()) {
    Tensors x;
    for (int v : op->inputs) x.push_back(values[v]);
    values[op->output] = op->plain(p, x);
  }
  return program.cross_entropy().plain(p, values[program.cross_entropy().input]);
}

Tensor values_at(const Parameters& parameters, const Selection& selection, at::ScalarType dtype) {
  Tensors parts;
  for (const SelectedPart& part : selection.parts())
    parts.push_back(
        parameters.stored(part.parameter).to(parameters.device(), dtype).flatten().index_select(0, part.entries()));
  return at::cat(parts);
}

}  // namespace

AutogradEngine::AutogradEngine(const Program& program, const Parameters& parameters, const Selection& selection,
                               const Tokens& tokens, at::ScalarType precision) {
  const at::AutoGradMode grad(true);
  theta_ = values_at(parameters, selection, precision).detach().requires_grad_(true);
  losses_ = plain_losses(program, parameters, selection, tokens, theta_);
  gradient_ = torch::autograd::grad({losses_.sum()}, {theta_}, {}, true, true)[0];
}

Tensor AutogradEngine::gradient() const { return gradient_.detach(); }

Tensor AutogradEngine::second(const Tensor& scalar) const {
  const Tensor h = torch::autograd::grad({scalar}, {theta_}, {}, true, false, true)[0];
  return h.defined() ? h : at::zeros_like(theta_);  // a gradient that does not depend on theta
}

Tensor AutogradEngine::product(const Tensor& v) const {
  const at::AutoGradMode grad(true);
  return second((gradient_ * v.to(gradient_.options())).sum());
}

Tensor AutogradEngine::columns(int64_t begin, int64_t end) const {
  const at::AutoGradMode grad(true);
  Tensors rows;
  for (int64_t i = begin; i < end; ++i) rows.push_back(second(gradient_[i]));
  return at::stack(rows);
}

}  // namespace hesper
