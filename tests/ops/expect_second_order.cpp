#include "ops/expect_second_order.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "ops/autograd_oracle.h"
#include "ops/directions.h"
#include "ops/parameters.h"
#include "ops/second_order.h"

namespace hesper::test {
namespace {

constexpr auto kF64 = at::kDouble;

Tensor or_zeros(const Tensor& x, at::IntArrayRef shape) { return x.defined() ? x : at::zeros(shape, kF64); }

/// The op's own maps on one window, tangents as dense (K, rows, .) and (K, n).
struct Maps {
  const Op& op;
  const OpWorld& world;
  Tokens tokens;

  Point adjoint(const Point& at_, const Tensor& y_bar) const {
    const Parameters parameters(place(world, at_.theta), kF64, at::kCPU);
    const Primal p{tokens, parameters, world.selection, kF64};
    Kept kept;
    Readout gradient(world.selection, 1, at::kCPU);
    op.forward(p, at_.x, kept);
    Point bars{op.adjoint(p, y_bar, ~0u, kept, gradient), gradient.values()[0]};
    for (size_t i = 0; i < bars.x.size(); ++i) bars.x[i] = or_zeros(bars.x[i], at_.x[i].sizes());
    return bars;
  }
  Tensor forward(const Point& at_) const {
    const Parameters parameters(place(world, at_.theta), kF64, at::kCPU);
    Kept kept;
    return op.forward({tokens, parameters, world.selection, kF64}, at_.x, kept);
  }
};

/// What the tangent maps give for K directions at once.
struct Tangents {
  Tensor y_dot;       // (K, rows, .)
  Tensors x_bar_dot;  // (K, rows, .) each
  Tensor w_bar_dot;   // (K, n)
  Tensor form;        // (K, K)
};
Tangents run_tangents(const Op& op, const OpWorld& world, const Parameters& parameters, const Tokens& tokens,
                      const Kept& tape, const Tensors& x_dot, const Tensor& v, const Tensor& y_bar_dot) {
  const Directions directions = Directions::dense(world.selection, v, kF64);
  const Tangent t{tokens, parameters, directions, tape, v.size(0)};
  Kept kept;
  Tangents out;
  out.y_dot = op.forward_tangent(t, x_dot, kept);
  Readout reads(world.selection, v.size(0), at::kCPU);
  out.x_bar_dot = op.adjoint_tangent(t, y_bar_dot, kept, reads);
  out.w_bar_dot = reads.values();
  SecondOrder form(world.selection, directions, kF64, at::kCPU);
  op.second_order(t, kept, form);
  EXPECT_EQ(form.gauss_newton().norm().item<double>(), 0) << "only the head has a Gauss-Newton part";
  out.form = form.residual();
  return out;
}

Tensors select(const Tensors& all, int64_t k) {
  Tensors out;
  for (const Tensor& x : all) out.push_back(x[k]);
  return out;
}

void expect_window(const Op& op, const OpWorld& world, const Kept& whole_tape, const Tensor& whole_y_bar, int64_t s,
                   int64_t K) {
  const int64_t length = world.tokens.length;
  const Tokens tokens = world.tokens.cut(s, 0, length);
  const Parameters parameters(world.parameters, kF64, at::kCPU);
  const Point at_{rows_of(world.inputs, s, length), selected(world, world.parameters)};
  const Tensor y_bar = whole_y_bar.narrow(0, s * length, length);
  const Kept tape = cut_rows(whole_tape, s * length, length);
  const Oracle oracle{op, world, tokens};
  const Maps maps{op, world, tokens};
  const size_t inputs = at_.x.size();

  Tensors x_dot;
  for (const Tensor& x : at_.x) x_dot.push_back(at::randn({K, length, x.size(1)}, kF64));
  const Tensor v = at::randn({K, at_.theta.numel()}, kF64);
  const Tensor y_bar_dot = at::randn({K, length, y_bar.size(1)}, kF64);
  const auto run = [&](const Tensors& x, const Tensor& w, const Tensor& y) {
    Tangents out = run_tangents(op, world, parameters, tokens, tape, x, w, y);
    out.y_dot = or_zeros(out.y_dot, {w.size(0), length, y_bar.size(1)});
    EXPECT_EQ(out.x_bar_dot.size(), inputs);
    for (size_t i = 0; i < inputs; ++i)
      out.x_bar_dot[i] = or_zeros(out.x_bar_dot[i], {w.size(0), length, at_.x[i].size(1)});
    return out;
  };
  const Tangents t = run(x_dot, v, y_bar_dot), flat = run(x_dot, v, {});

  const Point bars = maps.adjoint(at_, y_bar);
  std::vector<Point> d, hd;  // directions and H d, H of <y_bar, f>
  for (int64_t k = 0; k < K; ++k) {
    const std::string which = ", direction " + std::to_string(k);
    d.push_back({select(x_dot, k), v[k]});
    hd.push_back({select(flat.x_bar_dot, k), flat.w_bar_dot[k]});
    // forward_tangent
    expect_close(t.y_dot[k], oracle.tangent(at_, d[k]), kExact, t.y_dot[k].norm().item<double>(),
                 "forward_tangent, autograd" + which);
    const Point plus = moved(at_, d[k], kStep), minus = moved(at_, d[k], -kStep);
    expect_close(t.y_dot[k], (maps.forward(plus) - maps.forward(minus)) / (2 * kStep), kDifference,
                 t.y_dot[k].norm().item<double>(), "forward_tangent, differences" + which);
    // u.(J v) = v.(J^T u)
    const double jv = (y_bar * t.y_dot[k]).sum().item<double>();
    EXPECT_NEAR(jv, dot(bars, d[k]), kExact * (y_bar.norm() * t.y_dot[k].norm()).item<double>()) << which;
    // adjoint_tangent
    const Point mine{select(t.x_bar_dot, k), t.w_bar_dot[k]};
    expect_close(list(mine), list(oracle.adjoint_tangent(at_, y_bar, d[k], y_bar_dot[k])), kExact,
                 "adjoint_tangent, autograd" + which);
    const Point change = difference(maps.adjoint(plus, y_bar + kStep * y_bar_dot[k]),
                                    maps.adjoint(minus, y_bar - kStep * y_bar_dot[k]), kStep);
    expect_close(list(mine), list(change), kDifference, "adjoint_tangent, differences" + which);
  }
  // u.(H v) = v.(H u), and the second-order form is both of them
  Tensor form = at::zeros({K, K}, kF64);
  // At least |y_bar| times a product of two tangents: the form itself can be zero (attention over one token).
  double scale = y_bar.norm().item<double>() * dot(d[0], d[0]);
  for (int64_t i = 0; i < K; ++i)
    for (int64_t j = 0; j < K; ++j) {
      form[i][j] = dot(d[i], hd[j]);
      scale = std::max(scale, std::sqrt(dot(d[i], d[i]) * dot(hd[j], hd[j])));
    }
  expect_close(form, form.t(), kExact, scale, "symmetry");
  expect_close(flat.form, form, kExact, scale, "second_order");

  // linear in the direction: 0.7 d_0 - 1.3 d_last and its y_bar_dot
  const auto mix = [&](const Tensor& x) { return (0.7 * x[0] - 1.3 * x[K - 1]).unsqueeze(0); };
  Tensors mixed_x;
  for (const Tensor& x : x_dot) mixed_x.push_back(mix(x));
  const Tangents mixed = run(mixed_x, mix(v), mix(y_bar_dot));
  expect_close(mixed.y_dot, mix(t.y_dot), kExact, t.y_dot.norm().item<double>(), "linearity of forward_tangent");
  Tensors expected;
  for (const Tensor& x : t.x_bar_dot) expected.push_back(mix(x));
  expect_close(mixed.x_bar_dot, expected, kExact, "linearity of adjoint_tangent");
  expect_close(mixed.w_bar_dot, mix(t.w_bar_dot), kExact, t.w_bar_dot.norm().item<double>(), "linearity of w_bar_dot");

  // K at once = K one by one
  for (int64_t k = 0; k < K; ++k) {
    Tensors x;
    for (const Tensor& all : x_dot) x.push_back(all.narrow(0, k, 1).contiguous());
    const Tangents one = run(x, v.narrow(0, k, 1), y_bar_dot.narrow(0, k, 1).contiguous());
    expect_close(one.y_dot[0], t.y_dot[k], kExact, t.y_dot[k].norm().item<double>(), "one direction, y_dot");
    expect_close(select(one.x_bar_dot, 0), select(t.x_bar_dot, k), kExact, "one direction, x_bar_dot");
    expect_close(one.w_bar_dot[0], t.w_bar_dot[k], kExact, t.w_bar_dot[k].norm().item<double>(),
                 "one direction, w_bar_dot");
    EXPECT_NEAR(one.form.item<double>(), t.form[k][k].item<double>(), kExact * scale);
  }

  // an undefined tangent is a zero one, whichever inputs lack theirs
  for (unsigned missing = 1; missing < 1u << inputs; ++missing) {
    Tensors absent = x_dot, zero = x_dot;
    for (size_t i = 0; i < inputs; ++i)
      if (missing >> i & 1u) absent[i] = Tensor(), zero[i] = at::zeros_like(x_dot[i]);
    const std::string which = "without tangents of inputs, bits " + std::to_string(missing);
    const Tangents a = run(absent, v, y_bar_dot), b = run(zero, v, y_bar_dot);
    expect_close(a.y_dot, b.y_dot, kExact, t.y_dot.norm().item<double>(), which);
    expect_close(a.x_bar_dot, b.x_bar_dot, kExact, which);
    expect_close(a.w_bar_dot, b.w_bar_dot, kExact, t.w_bar_dot.norm().item<double>(), which);
    expect_close(a.form, b.form, kExact, scale, which);
  }

  // empty `kept` and no directions: y_bar_dot alone goes back (Gauss-Newton products)
  const Directions none;
  Readout reads(world.selection, K, at::kCPU);
  Tensors back = op.adjoint_tangent({tokens, parameters, none, tape, K}, y_bar_dot, {}, reads);
  for (size_t i = 0; i < inputs; ++i) back[i] = or_zeros(back[i], {K, length, at_.x[i].size(1)});
  for (int64_t k = 0; k < K; ++k) {
    const Point expected_k = oracle.adjoint(at_, y_bar_dot[k]);
    Tensors mine = select(back, k);
    mine.push_back(reads.values()[k]);
    expect_close(mine, list(expected_k), kExact, "adjoint_tangent of y_bar_dot alone");
  }
}

}  // namespace

void expect_second_order(const Op& op, const OpWorld& world, int64_t K) {
  const at::NoGradGuard no_grad;
  const Parameters parameters(world.parameters, kF64, at::kCPU);
  const Primal p{world.tokens, parameters, world.selection, kF64};
  const int64_t length = world.tokens.length;

  // forward and adjoint over the whole batch
  Kept tape;
  const Tensor y = op.forward(p, world.inputs, tape);
  expect_close(y, op.plain(p, world.inputs), kExact, y.norm().item<double>(), "forward against plain");
  Kept nothing;
  const Tensor bare = op.forward({world.tokens, parameters, world.selection, kF64, false}, world.inputs, nothing);
  EXPECT_TRUE(at::equal(bare, y)) << "forward that keeps nothing";
  const Tensor y_bar = at::randn(y.sizes(), kF64);
  Readout gradient(world.selection, world.tokens.sequences, at::kCPU);
  Tensors x_bar = op.adjoint(p, y_bar, ~0u, tape, gradient);
  ASSERT_EQ(x_bar.size(), world.inputs.size());
  for (size_t i = 0; i < x_bar.size(); ++i) x_bar[i] = or_zeros(x_bar[i], world.inputs[i].sizes());
  for (const Tensor& kept : tape)
    EXPECT_TRUE(!kept.defined() || kept.size(0) == world.tokens.rows()) << "the tape must lead with rows";

  for (int64_t s = 0; s < world.tokens.sequences; ++s) {
    SCOPED_TRACE(op.name() + ", window " + std::to_string(s));
    const Oracle oracle{op, world, world.tokens.cut(s, 0, length)};
    const Point at_{rows_of(world.inputs, s, length), selected(world, world.parameters)};
    const Tensor mine = y_bar.narrow(0, s * length, length);
    const Point expected = oracle.adjoint(at_, mine);
    Tensors bars = rows_of(x_bar, s, length);
    bars.push_back(gradient.values()[s]);
    expect_close(bars, list(expected), kExact, "adjoint, autograd");
    // differences of <y_bar, f> along a random direction
    const Maps maps{op, world, oracle.tokens};
    Point d;
    for (const Tensor& x : at_.x) d.x.push_back(at::randn(x.sizes(), kF64));
    d.theta = at::randn(at_.theta.sizes(), kF64);
    const Tensor change = (maps.forward(moved(at_, d, kStep)) - maps.forward(moved(at_, d, -kStep))) / (2 * kStep);
    EXPECT_NEAR((change * mine).sum().item<double>(), dot(expected, d),
                kDifference * (change.norm() * mine.norm()).item<double>())
        << "adjoint, differences";
    expect_window(op, world, tape, y_bar, s, K);
  }
}

}  // namespace hesper::test
