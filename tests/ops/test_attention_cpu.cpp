// The CPU kernels of attention against the composed maps of attention_blocks.h.
#include "ops/attention_cpu.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/attention_blocks.h"

namespace hesper::test {
namespace {
namespace blocks = attention_blocks;
namespace cpu = attention_cpu;

struct Case {
  AttentionShape shape;
  int64_t tokens, directions;
};
std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "H" << c.shape.heads << "G" << c.shape.kv_heads << "D" << c.shape.width << "T" << c.tokens << "K"
             << c.directions;
}

constexpr unsigned kQ = 1, kK = 2, kV = 4;

struct Results {
  Tensor o, r, form;
  Tensor form_o;                         // o as the form's sweep leaves it
  Tensors full, residual, gauss_newton;  // {q, k, v}_bar_dot: all tangents; o_bar_dot = 0; zero tangents
  double form_terms = 0;                 // sum of |x_dot| |x'|: what the form's sums would be without cancellation
};

/// One sequence and its tangents in fp64; where `rounded`, every value is one that fp32 holds.
struct World {
  Case c;
  cpu::Tape tape;
  cpu::Tangents dot;
  Tensor o_bar_dot;

  Tensor random(std::vector<int64_t> size, double scale = 1) const { return at::randn(size, at::kDouble) * scale; }
  blocks::HeadsTape heads_tape() const {
    const int64_t repeat = c.shape.heads / c.shape.kv_heads;
    const auto one = [](const Tensor& x) { return x.defined() ? x.unsqueeze(0) : x; };
    blocks::HeadsTape h;
    h.q = blocks::split_heads(one(tape.q), c.shape.heads, 1);
    h.k = blocks::split_heads(one(tape.k), c.shape.kv_heads, repeat);
    h.v = blocks::split_heads(one(tape.v), c.shape.kv_heads, repeat);
    h.o = blocks::split_heads(one(tape.o), c.shape.heads, 1);
    h.o_bar = blocks::split_heads(one(tape.o_bar), c.shape.heads, 1);
    if (tape.L.defined()) h.L = one(tape.L).transpose(1, 2).contiguous();
    if (tape.Dl.defined()) h.Dl = one(tape.Dl).transpose(1, 2).contiguous();
    return h;
  }

  explicit World(const Case& c_, bool rounded = false) : c(c_) {
    at::manual_seed(11);
    const int64_t t = c.tokens, q = c.shape.heads * c.shape.width, kv = c.shape.kv_heads * c.shape.width;
    const auto make = [&](std::vector<int64_t> size, double scale) {
      const Tensor x = random(std::move(size), scale);
      return rounded ? x.to(at::kFloat).to(at::kDouble) : x;
    };
    tape.q = make({t, q}, 1.5), tape.k = make({t, kv}, 1.5), tape.v = make({t, kv}, 1), tape.o_bar = make({t, q}, 1);
    dot.q = make({c.directions, t, q}, 1), dot.k = make({c.directions, t, kv}, 1);
    dot.v = make({c.directions, t, kv}, 1), o_bar_dot = make({c.directions, t, q}, 1);
    blocks::HeadsTape h = heads_tape();
    blocks::forward(h, c.shape);
    blocks::adjoint(h, c.shape);
    const auto flat = [](const Tensor& x) { return x[0].transpose(0, 1).contiguous(); };
    tape.o = flat(h.o).flatten(1), tape.L = flat(h.L), tape.Dl = flat(h.Dl);
  }

  cpu::Tangents moving(unsigned pattern) const {
    return {pattern & kQ ? dot.q : Tensor(), pattern & kK ? dot.k : Tensor(), pattern & kV ? dot.v : Tensor(), {}, {}};
  }

  Results composed(unsigned pattern) const {
    const AttentionShape& s = c.shape;
    const int64_t repeat = s.heads / s.kv_heads;
    const blocks::HeadsTape h = heads_tape();
    const cpu::Tangents x = moving(pattern);
    blocks::HeadsTangents d{blocks::split_heads(x.q, s.heads, 1),
                            blocks::split_heads(x.k, s.kv_heads, repeat),
                            blocks::split_heads(x.v, s.kv_heads, repeat),
                            {},
                            {}};
    blocks::forward_tangent(h, d, s);
    const auto joined = [&](const Tensors& bar) {
      return Tensors{blocks::join_heads(bar[0], s.heads), blocks::join_heads(bar[1], s.kv_heads),
                     blocks::join_heads(bar[2], s.kv_heads)};
    };
    const Tensor bar = blocks::split_heads(o_bar_dot, s.heads, 1);
    Results out{blocks::join_heads(d.o, s.heads),
                d.r.defined() ? d.r.transpose(1, 2) : d.r,
                at::zeros({c.directions, c.directions}, at::kDouble),
                Tensor(),
                joined(blocks::adjoint_tangent(h, d, bar, s)),
                joined(blocks::adjoint_tangent(h, d, {}, s)),
                joined(blocks::adjoint_tangent(h, {}, bar, s))};
    const Tensors prime = blocks::second_order(h, d, s);
    const Tensors factor{d.q, d.k, d.v};
    for (int i = 0; i < 3; ++i)
      if (factor[i].defined() && prime[i].defined()) {
        out.form += at::matmul(factor[i].flatten(1), prime[i].flatten(1).t());
        out.form_terms += (factor[i].norm() * prime[i].norm()).item<double>();
      }
    return out;
  }

  Results fused(unsigned pattern, at::ScalarType dtype) const {
    const auto to = [&](const Tensor& x) { return x.defined() ? x.to(dtype) : x; };
    const cpu::Tape t{to(tape.q), to(tape.k), to(tape.v), to(tape.o), to(tape.L), to(tape.o_bar), to(tape.Dl)};
    const cpu::Tangents moves = moving(pattern), given{to(moves.q), to(moves.k), to(moves.v), {}, {}};
    cpu::Tangents d = given, again = given;
    cpu::forward_tangent(c.shape, t, d);
    Results out{d.o,
                d.r,
                cpu::tangent_and_form(c.shape, t, again),
                again.o,
                cpu::adjoint_tangent(c.shape, t, d, to(o_bar_dot)),
                cpu::adjoint_tangent(c.shape, t, d, {}),
                cpu::adjoint_tangent(c.shape, t, {}, to(o_bar_dot))};
    out.form_o = again.o;
    return out;
  }
};

/// |a - b| over |b|, or over `least` where b is a sum that cancels; over the norm of ones where b is zero but for
/// rounding (one token: P = 1 whatever the scores).
double difference(const Tensor& a, const Tensor& b, double least = 0) {
  double scale = std::max(least, b.norm().item<double>());
  const double ones = std::sqrt(static_cast<double>(b.numel()));
  if (scale < 1e-10 * ones) scale = ones;
  return (a.to(at::kDouble) - b).norm().item<double>() / scale;
}

void expect_same(const Results& a, const Results& b, double tolerance) {
  EXPECT_LE(difference(a.o, b.o), tolerance) << "o_dot";
  ASSERT_EQ(a.r.defined(), b.r.defined());
  if (a.r.defined()) {
    EXPECT_LE(difference(a.r, b.r), tolerance) << "r";
  }
  EXPECT_LE(difference(a.form_o, b.o), tolerance) << "o_dot of the form's sweep";
  EXPECT_LE(difference(a.form, b.form, b.form_terms), tolerance) << "form";
  for (int i = 0; i < 3; ++i) {
    EXPECT_LE(difference(a.full[i], b.full[i]), tolerance) << "adjoint_tangent of input " << i;
    EXPECT_LE(difference(a.residual[i], b.residual[i]), tolerance) << "with o_bar_dot = 0, input " << i;
    EXPECT_LE(difference(a.gauss_newton[i], b.gauss_newton[i]), tolerance) << "with zero tangents, input " << i;
  }
}

class AttentionCpu : public testing::TestWithParam<Case> {};

TEST_P(AttentionCpu, AgreesWithComposedMapsInDouble) {
  const World world(GetParam());
  for (unsigned pattern = 1; pattern < 8; ++pattern) {
    SCOPED_TRACE(testing::Message() << GetParam() << " moving (1 q, 2 k, 4 v): " << pattern);
    // The same sums in another order: some hundred roundings of 1e-16.
    expect_same(world.fused(pattern, at::kDouble), world.composed(pattern), 1e-12);
  }
}

TEST_P(AttentionCpu, PrimalMapsAgreeWithComposedOnes) {
  const World world(GetParam());  // its tape is the composed maps'
  cpu::Tape mine{world.tape.q, world.tape.k, world.tape.v, {}, {}, {}, {}};
  cpu::forward(GetParam().shape, mine);
  EXPECT_LE(difference(mine.o, world.tape.o), 1e-13);
  EXPECT_LE(difference(mine.L, world.tape.L), 1e-13);
  mine.o_bar = world.tape.o_bar;
  const Tensors bar = cpu::adjoint(GetParam().shape, mine);
  EXPECT_LE(difference(mine.Dl, world.tape.Dl), 1e-12);
  blocks::HeadsTape h = world.heads_tape();
  const Tensors composed = blocks::adjoint(h, GetParam().shape);
  const int64_t heads[] = {GetParam().shape.heads, GetParam().shape.kv_heads, GetParam().shape.kv_heads};
  for (int i = 0; i < 3; ++i)
    EXPECT_LE(difference(bar[i], blocks::join_heads(composed[i], heads[i])[0]), 1e-12) << "input " << i;
}

TEST_P(AttentionCpu, SingleIsAccurateToItsRounding) {
  const World world(GetParam(), true);
  // P = exp(S - L) turns an absolute error of a score into a relative one of P: eps times the largest |S|, here |q||k|
  // c of some 10 to 20 for the widest heads; errors of sums over D channels and T keys grow as sqrt(D) and sqrt(T).
  const double eps = std::numeric_limits<float>::epsilon();
  const double tolerance = 8 * eps * std::sqrt(static_cast<double>(GetParam().tokens + GetParam().shape.width + 16));
  for (unsigned pattern : {1u, 2u, 4u, 7u}) {
    SCOPED_TRACE(testing::Message() << GetParam() << " moving (1 q, 2 k, 4 v): " << pattern);
    expect_same(world.fused(pattern, at::kFloat), world.composed(pattern), tolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionCpu,
                         testing::Values(Case{{1, 1, 1, 1.0}, 1, 1}, Case{{4, 2, 8, 0.35}, 1, 3},
                                         Case{{3, 1, 1, 0.7}, 5, 16}, Case{{4, 4, 32, 0.18}, 5, 40},
                                         Case{{2, 1, 80, 0.11}, 5, 1}, Case{{6, 2, 8, 0.35}, 129, 3},
                                         Case{{1, 1, 64, 0.125}, 129, 16}, Case{{2, 1, 32, 0.18}, 65, 70},
                                         Case{{3, 3, 1, 1.0}, 300, 3}, Case{{3, 1, 64, 0.125}, 300, 1},
                                         Case{{2, 1, 80, 0.11}, 300, 3}));

TEST(AttentionCpu, ResultsDependOnTheThreadsOnlyByRounding) {
  const World world({{3, 1, 16, 0.25}, 150, 40});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Results one = world.fused(7, at::kDouble);
  at::set_num_threads(7);  // 40 directions in chunks that do not divide it
  const Results seven = world.fused(7, at::kDouble), again = world.fused(7, at::kDouble);
  at::set_num_threads(threads);
  expect_same(seven, one, 1e-13);
  EXPECT_TRUE(at::equal(seven.form, again.form));
  EXPECT_TRUE(at::equal(seven.o, again.o));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(at::equal(seven.full[i], again.full[i]));
}

TEST(AttentionCpu, ComputesOnlyWantedAdjoints) {
  const World world({{4, 2, 8, 0.35}, 40, 3});
  cpu::Tangents dot = world.moving(7);
  cpu::forward_tangent(world.c.shape, world.tape, dot);
  const Tensors all = cpu::adjoint_tangent(world.c.shape, world.tape, dot, world.o_bar_dot);
  for (int i = 0; i < 3; ++i) {
    const Tensors one = cpu::adjoint_tangent(world.c.shape, world.tape, dot, world.o_bar_dot, 1u << i);
    for (int j = 0; j < 3; ++j) EXPECT_EQ(one[j].defined(), i == j);
    EXPECT_TRUE(at::equal(one[i], all[i]));
  }
}

TEST(AttentionCpu, ReadsRowsOfAWindowWithinALargerTape) {
  const World world({{4, 2, 8, 0.35}, 40, 3});
  cpu::Tangents a = world.moving(7), b = a;
  b.q = at::cat({b.q, b.q}, 2).narrow(2, 0, b.q.size(2));  // not contiguous
  EXPECT_TRUE(at::equal(cpu::tangent_and_form(world.c.shape, world.tape, a),
                        cpu::tangent_and_form(world.c.shape, world.tape, b)));
}

TEST(AttentionCpu, ScratchIsBounded) {
  const AttentionShape shape{9, 3, 64, 0.125};
  const int64_t few = cpu::scratch_bytes(shape, 2048, 16, 4, 2), many = cpu::scratch_bytes(shape, 2048, 768, 4, 2);
  EXPECT_LT(few, many);
  // Two threads: 64 MiB of K', V', Q' and 4 blocks each; (G + 1) forms of 768 x 768.
  EXPECT_LE(many, 2 * ((64 << 20) + 4 * (1 << 20)) + 4 * 768 * 768 * 8);
}

}  // namespace
}  // namespace hesper::test
