#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "ops/autograd_oracle.h"
#include "ops/directions.h"
#include "ops/expect_second_order.h"
#include "ops/parameters.h"
#include "ops/second_order.h"

namespace hesper::test {

void expect_second_order(const CrossEntropyHead& head, const OpWorld& world, int64_t K) {
  const at::NoGradGuard no_grad;
  const Parameters parameters(world.parameters, at::kDouble, at::kCPU);
  const Tensor& x = world.inputs.at(0);
  const int64_t length = world.tokens.length, n = world.selection.size();
  const Primal p{world.tokens, parameters, world.selection, at::kDouble};
  Kept tape;
  Readout gradient(world.selection, world.tokens.sequences, at::kCPU);
  const auto result = head.forward_adjoint(p, x, tape, gradient);
  expect_close(result.losses, head.plain(p, x), kExact, result.losses.norm().item<double>(), "losses");

  for (int64_t s = 0; s < world.tokens.sequences; ++s) {
    SCOPED_TRACE("head, window " + std::to_string(s));
    const Tokens tokens = world.tokens.cut(s, 0, length);
    const Tensor x_dot = at::randn({K, length, x.size(1)}, at::kDouble), v = at::randn({K, n}, at::kDouble);
    const auto loss_at = [&](const Tensor& input, const Tensor& theta) {
      const Parameters moved_parameters(place(world, theta), at::kDouble, at::kCPU);
      return head.plain({tokens, moved_parameters, world.selection, at::kDouble, false}, input).sum();
    };
    const Tensor x0 = x.narrow(0, s * length, length), theta0 = selected(world, world.parameters);

    // Autograd: gradient, H d, and G d = J^T Lambda J d.
    std::vector<Point> d;
    Tensors h_x, h_w, g_x, g_w;
    Tensors bars;
    {
      const at::AutoGradMode on(true);
      const Point point = leaf({{x0}, theta0});
      const Tensors first = gradients(loss_at(point.x[0], point.theta), list(point), true);
      bars = {first[0].detach(), first[1].detach()};
      const Parameters moved_parameters(place(world, point.theta), at::kDouble, at::kCPU);
      const Tensor z = head.logits(moved_parameters, point.x[0]);
      const Tensor u = at::zeros_like(z).requires_grad_(true);
      const Tensors back = gradients((z * u).sum(), list(point), true);
      for (int64_t k = 0; k < K; ++k) {
        const Tensors second = gradients((first[0] * x_dot[k]).sum() + (first[1] * v[k]).sum(), list(point), false);
        h_x.push_back(second[0].detach()), h_w.push_back(second[1].detach());
        const Tensor z_dot = gradients((back[0] * x_dot[k]).sum() + (back[1] * v[k]).sum(), {u}, false)[0].detach();
        const Tensor prob = z.detach().softmax(-1);
        const Tensor z_bar_dot =
            tokens.weights.unsqueeze(1) * prob * (z_dot - (prob * z_dot).sum(-1, true));  // Lambda z_dot
        const Tensors gn = gradients((z * z_bar_dot).sum(), list(point), false);
        g_x.push_back(gn[0].detach()), g_w.push_back(gn[1].detach());
      }
    }
    const Tensors hessian = {at::stack(h_x), at::stack(h_w)}, gauss_newton = {at::stack(g_x), at::stack(g_w)};
    const Tensors residual = {hessian[0] - gauss_newton[0], hessian[1] - gauss_newton[1]};
    expect_close({result.x_bar.narrow(0, s * length, length), gradient.values()[s]}, bars, kExact, "adjoint");

    const Kept mine = cut_rows(tape, s * length, length);
    const auto run = [&](const Tensor& xd, const Tensor& w, Curvature kind) {
      const Directions directions = Directions::dense(world.selection, w, at::kDouble);
      Readout reads(world.selection, w.size(0), at::kCPU);
      const Tensor x_bar_dot = head.adjoint_tangent({tokens, parameters, directions, mine, w.size(0)}, xd, kind, reads);
      return Tensors{x_bar_dot, reads.values()};
    };
    expect_close(run(x_dot, v, Curvature::hessian), hessian, kExact, "H");
    expect_close(run(x_dot, v, Curvature::gauss_newton), gauss_newton, kExact, "G");
    const Tensors r = run(x_dot, v, Curvature::residual);
    for (int i = 0; i < 2; ++i)  // zero where the table does not move: measured against H
      expect_close(r[i], residual[i], kExact, size_of(hessian), "R");
    expect_close(run({}, v, Curvature::hessian), run(at::zeros_like(x_dot), v, Curvature::hessian), kExact,
                 "without a tangent of the input");
    for (int64_t k = 0; k < K; ++k) {
      const Tensors one = run(x_dot.narrow(0, k, 1).contiguous(), v.narrow(0, k, 1), Curvature::hessian);
      expect_close({one[0][0], one[1][0]}, {hessian[0][k], hessian[1][k]}, kExact, "one direction");
      // central differences of the loss along d_k: its second derivative is d.H d
      const double h = 1e-4;  // truncation h^2/12 |l''''|, rounding 4 eps/h^2 = 1e-7
      const auto l = [&](double e) { return loss_at(x0 + e * x_dot[k], theta0 + e * v[k]).item<double>(); };
      const double curvature = (x_dot[k] * hessian[0][k]).sum().item<double>() + v[k].dot(hessian[1][k]).item<double>();
      EXPECT_NEAR((l(h) - 2 * l(0) + l(-h)) / (h * h), curvature, 1e-5 * (1 + std::abs(curvature)));
      const double slope = (x_dot[k] * bars[0]).sum().item<double>() + v[k].dot(bars[1]).item<double>();
      EXPECT_NEAR((l(h) - l(-h)) / (2 * h), slope, 1e-5 * (1 + std::abs(slope)));
    }
    const Directions directions = Directions::dense(world.selection, v, at::kDouble);
    SecondOrder form(world.selection, directions, at::kDouble, at::kCPU);
    head.second_order({tokens, parameters, directions, mine, K}, x_dot, form);
    const auto matrix = [&](const Tensors& hd) { return x_dot.flatten(1).mm(hd[0].flatten(1).t()) + v.mm(hd[1].t()); };
    const double scale = (x_dot.norm() * hessian[0].norm() + v.norm() * hessian[1].norm()).item<double>();
    expect_close(form.gauss_newton(), matrix(gauss_newton), kExact, scale, "second_order, Gauss-Newton");
    expect_close(form.residual(), matrix(residual), kExact, scale, "second_order, residual");
    expect_close(matrix(hessian), matrix(hessian).t(), kExact, scale, "symmetry");
  }
}

}  // namespace hesper::test
