#include "ops/expect_second_order.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "ops/second_order.h"
#include "primal/primal.h"

namespace hesper::test {
namespace {

constexpr auto kF64 = at::kDouble;

Tensor or_zeros(const Tensor& x, at::IntArrayRef shape) { return x.defined() ? x : at::zeros(shape, kF64); }

void expect_close(const Tensor& a, const Tensor& b, double tolerance, double scale, const std::string& what) {
  ASSERT_EQ(a.sizes(), b.sizes()) << what;
  EXPECT_LE((a - b).norm().item<double>(), tolerance * std::max(scale, 1e-30)) << what << ", |b| = " << b.norm();
}
double size_of(const Tensors& all) {
  double sum = 0;
  for (const Tensor& t : all)
    if (t.defined()) sum += t.square().sum().item<double>();
  return std::sqrt(sum);
}
void expect_close(const Tensors& a, const Tensors& b, double tolerance, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  // One scale for all of them: of several adjoints one may be zero up to rounding.
  for (size_t i = 0; i < a.size(); ++i) expect_close(a[i], b[i], tolerance, size_of(b), what + " " + std::to_string(i));
}

/// A point in the space that an op's derivatives live on: inputs x (rows, .), selected weights theta (n).
struct Point {
  Tensors x;
  Tensor theta;
};
double dot(const Point& a, const Point& b) {
  double sum = a.theta.numel() > 0 ? a.theta.dot(b.theta).item<double>() : 0;
  for (size_t i = 0; i < a.x.size(); ++i) sum += (a.x[i] * b.x[i]).sum().item<double>();
  return sum;
}
Tensors list(const Point& p) {
  Tensors out = p.x;
  out.push_back(p.theta);
  return out;
}

Tensor selected(const OpWorld& world, const Tensors& parameters) {
  Tensors parts;
  for (const SelectedPart& part : world.selection.parts())
    parts.push_back(parameters[part.parameter].flatten().index_select(0, part.flat));
  return parts.empty() ? at::zeros({0}, kF64) : at::cat(parts);
}
/// Parameters with theta in the place of the selected entries.
Tensors place(const OpWorld& world, const Tensor& theta) {
  Tensors out = world.parameters;
  for (const SelectedPart& part : world.selection.parts()) {
    const Tensor& w = out[part.parameter];
    out[part.parameter] = w.flatten().index_copy(0, part.flat, theta.narrow(0, part.begin, part.size)).view_as(w);
  }
  return out;
}

/// Derivatives of s(x, theta, y_bar) = <y_bar, plain(x, theta)> on the rows of one window.
struct Oracle {
  const Op& op;
  const OpWorld& world;
  Tokens tokens;

  Tensor plain(const Point& at_) const {
    const Parameters parameters(place(world, at_.theta), kF64, at::kCPU);
    return op.plain({tokens, parameters, world.selection, kF64, false}, at_.x);
  }
  static Tensors grad(const Tensor& s, const Tensors& leaves, bool graph) {
    Tensors out(leaves.size());
    if (s.requires_grad()) out = torch::autograd::grad({s}, leaves, {}, true, graph, true);
    for (size_t i = 0; i < out.size(); ++i)
      if (!out[i].defined()) out[i] = at::zeros_like(leaves[i]);
    return out;
  }
  static Point leaf(const Point& p) {
    Point out;
    for (const Tensor& x : p.x) out.x.push_back(x.detach().clone().requires_grad_(true));
    out.theta = p.theta.detach().clone().requires_grad_(true);
    return out;
  }
  static Point split(const Tensors& all, size_t inputs) {
    return {Tensors(all.begin(), all.begin() + static_cast<int64_t>(inputs)), all[inputs].detach()};
  }

  Point adjoint(const Point& at_, const Tensor& y_bar) const {
    const at::AutoGradMode on(true);
    const Point p = leaf(at_);
    return split(grad((plain(p) * y_bar).sum(), list(p), false), p.x.size());
  }
  /// J d, by differentiating J^T z in z.
  Tensor tangent(const Point& at_, const Point& d) const {
    const at::AutoGradMode on(true);
    const Point p = leaf(at_);
    const Tensor y = plain(p), z = at::zeros_like(y).requires_grad_(true);
    const Point bars = split_graph(grad((y * z).sum(), list(p), true), p.x.size());
    return grad(along(bars, d), {z}, false)[0].detach();
  }
  /// The derivative of the adjoint along (d, y_bar_dot).
  Point adjoint_tangent(const Point& at_, const Tensor& y_bar, const Point& d, const Tensor& y_bar_dot) const {
    const at::AutoGradMode on(true);
    const Point p = leaf(at_);
    const Tensor y = plain(p);
    const Point bars = split_graph(grad((y * y_bar).sum(), list(p), true), p.x.size());
    const Tensor s = along(bars, d) + (y * y_bar_dot).sum();
    return split(grad(s, list(p), false), p.x.size());
  }
  static Point split_graph(const Tensors& all, size_t inputs) {
    return {Tensors(all.begin(), all.begin() + static_cast<int64_t>(inputs)), all[inputs]};
  }
  static Tensor along(const Point& bars, const Point& d) {
    Tensor s = (bars.theta * d.theta).sum();
    for (size_t i = 0; i < d.x.size(); ++i) s = s + (bars.x[i] * d.x[i]).sum();
    return s;
  }
};

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
    return bars;
  }
  Tensor forward(const Point& at_) const {
    const Parameters parameters(place(world, at_.theta), kF64, at::kCPU);
    Kept kept;
    return op.forward({tokens, parameters, world.selection, kF64}, at_.x, kept);
  }
};

Point moved(const Point& p, const Point& d, double h) {
  Point out{p.x, p.theta + h * d.theta};
  for (size_t i = 0; i < p.x.size(); ++i) out.x[i] = p.x[i] + h * d.x[i];
  return out;
}
Point difference(const Point& a, const Point& b, double h) {
  Point out{a.x, (a.theta - b.theta) / (2 * h)};
  for (size_t i = 0; i < a.x.size(); ++i) out.x[i] = (a.x[i] - b.x[i]) / (2 * h);
  return out;
}

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

Tensors rows_of(const Tensors& all, int64_t s, int64_t length) {
  Tensors out;
  for (const Tensor& x : all) out.push_back(x.narrow(0, s * length, length));
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
  const Tensors back = op.adjoint_tangent({tokens, parameters, none, tape, K}, y_bar_dot, {}, reads);
  for (int64_t k = 0; k < K; ++k) {
    const Point expected_k = oracle.adjoint(at_, y_bar_dot[k]);
    Tensors mine = select(back, k);
    mine.push_back(reads.values()[k]);
    expect_close(mine, list(expected_k), kExact, "adjoint_tangent of y_bar_dot alone");
  }
}

}  // namespace

OpWorld::OpWorld(int64_t windows, int64_t length, int64_t vocab) {
  const Tensor ids = at::randint(vocab, {windows, length}, at::kLong);
  if (length > 1) {
    tokens = make_tokens(ids, ids, at::kCPU);
  } else {  // a window of one token predicts nothing; an op may still stand on it
    const int64_t rows = windows * length;
    tokens = {windows, length, 0, ids.flatten(), at::zeros({rows}, at::kLong), at::ones({rows}, kF64)};
  }
}

void OpWorld::select(int64_t m) {
  for (size_t p = 0; p < parameters.size(); ++p) {
    const int64_t total = parameters[p].numel();
    selection.add(static_cast<int>(p), parameters[p].sizes(), at::randperm(total).narrow(0, 0, std::min(m, total)));
  }
}
void OpWorld::select_all() {
  for (size_t p = 0; p < parameters.size(); ++p) selection.add_whole(static_cast<int>(p), parameters[p].sizes());
}

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
  const Tensors x_bar = op.adjoint(p, y_bar, ~0u, tape, gradient);
  ASSERT_EQ(x_bar.size(), world.inputs.size());
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

void expect_second_order(const CrossEntropyHead& head, const OpWorld& world, int64_t K) {
  const at::NoGradGuard no_grad;
  const Parameters parameters(world.parameters, kF64, at::kCPU);
  const Tensor& x = world.inputs.at(0);
  const int64_t length = world.tokens.length, n = world.selection.size();
  const Primal p{world.tokens, parameters, world.selection, kF64};
  Kept tape;
  Readout gradient(world.selection, world.tokens.sequences, at::kCPU);
  const auto result = head.forward_adjoint(p, x, tape, gradient);
  expect_close(result.losses, head.plain(p, x), kExact, result.losses.norm().item<double>(), "losses");

  for (int64_t s = 0; s < world.tokens.sequences; ++s) {
    SCOPED_TRACE("head, window " + std::to_string(s));
    const Tokens tokens = world.tokens.cut(s, 0, length);
    const Tensor x_dot = at::randn({K, length, x.size(1)}, kF64), v = at::randn({K, n}, kF64);
    const auto loss_at = [&](const Tensor& input, const Tensor& theta) {
      const Parameters moved_parameters(place(world, theta), kF64, at::kCPU);
      return head.plain({tokens, moved_parameters, world.selection, kF64, false}, input).sum();
    };
    const Tensor x0 = x.narrow(0, s * length, length), theta0 = selected(world, world.parameters);

    // Autograd: gradient, H d, and G d = J^T Lambda J d.
    std::vector<Point> d;
    Tensors h_x, h_w, g_x, g_w;
    Tensors bars;
    {
      const at::AutoGradMode on(true);
      const Point leaf = Oracle::leaf({{x0}, theta0});
      const Tensors first = Oracle::grad(loss_at(leaf.x[0], leaf.theta), list(leaf), true);
      bars = {first[0].detach(), first[1].detach()};
      const Parameters moved_parameters(place(world, leaf.theta), kF64, at::kCPU);
      const Tensor z = head.logits(moved_parameters, leaf.x[0]);
      const Tensor u = at::zeros_like(z).requires_grad_(true);
      const Tensors back = Oracle::grad((z * u).sum(), list(leaf), true);
      for (int64_t k = 0; k < K; ++k) {
        const Tensors second = Oracle::grad((first[0] * x_dot[k]).sum() + (first[1] * v[k]).sum(), list(leaf), false);
        h_x.push_back(second[0].detach()), h_w.push_back(second[1].detach());
        const Tensor z_dot = Oracle::grad((back[0] * x_dot[k]).sum() + (back[1] * v[k]).sum(), {u}, false)[0].detach();
        const Tensor prob = z.detach().softmax(-1);
        const Tensor z_bar_dot =
            tokens.weights.unsqueeze(1) * prob * (z_dot - (prob * z_dot).sum(-1, true));  // Lambda z_dot
        const Tensors gn = Oracle::grad((z * z_bar_dot).sum(), list(leaf), false);
        g_x.push_back(gn[0].detach()), g_w.push_back(gn[1].detach());
      }
    }
    const Tensors hessian = {at::stack(h_x), at::stack(h_w)}, gauss_newton = {at::stack(g_x), at::stack(g_w)};
    const Tensors residual = {hessian[0] - gauss_newton[0], hessian[1] - gauss_newton[1]};
    expect_close({result.x_bar.narrow(0, s * length, length), gradient.values()[s]}, bars, kExact, "adjoint");

    const Kept mine = cut_rows(tape, s * length, length);
    const auto run = [&](const Tensor& xd, const Tensor& w, Curvature kind) {
      const Directions directions = Directions::dense(world.selection, w, kF64);
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
    const Directions directions = Directions::dense(world.selection, v, kF64);
    SecondOrder form(world.selection, directions, kF64, at::kCPU);
    head.second_order({tokens, parameters, directions, mine, K}, x_dot, form);
    const auto matrix = [&](const Tensors& hd) { return x_dot.flatten(1).mm(hd[0].flatten(1).t()) + v.mm(hd[1].t()); };
    const double scale = (x_dot.norm() * hessian[0].norm() + v.norm() * hessian[1].norm()).item<double>();
    expect_close(form.gauss_newton(), matrix(gauss_newton), kExact, scale, "second_order, Gauss-Newton");
    expect_close(form.residual(), matrix(residual), kExact, scale, "second_order, residual");
    expect_close(matrix(hessian), matrix(hessian).t(), kExact, scale, "symmetry");
  }
}

}  // namespace hesper::test
