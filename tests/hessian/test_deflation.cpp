// Deflation of known indefinite matrices: no bias for any basis, less variance, nothing left at full rank.
#include "hessian/deflation.h"

#include <gtest/gtest.h>

namespace hesper {
namespace {

// fp64 sums of some hundred terms.
constexpr double kTolerance = 1e-12;

/// Symmetric, eigenvalues of both signs that fall like 1/j.
at::Tensor indefinite(int64_t n) {
  const auto q = std::get<0>(at::linalg_qr(at::randn({n, n}, at::kDouble)));
  at::Tensor values = at::arange(1, n + 1, at::kDouble).reciprocal();
  values.slice(0, 0, n, 3).neg_();
  return (q * values).mm(q.t());
}

double gap(const at::Tensor& a, const at::Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }

/// One window's known diagonal after a block has joined.
at::Tensor join(Deflation& deflation, const at::Tensor& block, const at::Tensor& h) {
  const at::Tensor known = deflation.known(block, 0, block.mm(h)).diagonal;
  deflation.join(block);
  return known;
}

at::Tensor projected(const Deflation& deflation, const at::Tensor& h) {
  const at::Tensor rows = deflation.project(h);  // H P
  return deflation.project(rows.t());            // P H P
}

// e + diag P H P = diag H whatever the rows of Q are: not orthogonal, not the Krylov space of this window.
TEST(Deflation, KnownPartAndRestMakeTheDiagonal) {
  at::manual_seed(3);
  constexpr int64_t n = 30;
  Deflation deflation(9, n, at::kDouble);
  const at::Tensor a = indefinite(n), b = indefinite(n);
  at::Tensor of_a = at::zeros({n}, at::kDouble), of_b = at::zeros({n}, at::kDouble);
  for (const int64_t rows : {4, 1, 4}) {
    const at::Tensor block = at::randn({rows, n}, at::kDouble) / 8;
    const at::Tensor known = deflation.known(block, 0, block.mm(a)).diagonal;
    const at::Tensor others = deflation.known(block, rows / 2, block.slice(0, rows / 2).mm(a)).diagonal;
    const at::Tensor half = deflation.known(block, 0, block.slice(0, 0, rows / 2).mm(a)).diagonal;
    EXPECT_LE(gap(half + others, known), kTolerance);  // in pieces: the same
    of_a += known;
    of_b += join(deflation, block, b);
  }
  EXPECT_EQ(deflation.size(), 9);
  EXPECT_LE(gap(of_a + projected(deflation, a).diagonal(), a.diagonal()), kTolerance);
  EXPECT_LE(gap(of_b + projected(deflation, b).diagonal(), b.diagonal()), kTolerance);
}

// All 2^10 sign vectors: the expectation itself, and the variance that the header says.
TEST(Deflation, SamplesAreUnbiased) {
  at::manual_seed(4);
  constexpr int64_t n = 10;
  const at::Tensor h = indefinite(n);
  Deflation deflation(4, n, at::kDouble);
  at::Tensor known = at::zeros({n}, at::kDouble), w = h.slice(0, 0, 2);
  for (int i = 0; i < 2; ++i) {
    const at::Tensor block = deflation.next_block(w);
    w = deflation.known(block, 0, block.mm(h)).rest;
    known += join(deflation, block, h);
  }
  const at::Tensor bits = at::arange(1 << n, at::kLong).unsqueeze(1).bitwise_right_shift(at::arange(n, at::kLong));
  const at::Tensor v = bits.bitwise_and(1).to(at::kDouble) * 2 - 1;
  const at::Tensor z = v * deflation.project(deflation.project(v).mm(h)), rest = projected(deflation, h);
  EXPECT_LE(gap(known + z.mean(0), h.diagonal()), kTolerance);
  EXPECT_LE(gap(z.var(0, false), rest.square().sum(1) - rest.diagonal().square()), kTolerance);
  EXPECT_LT(z.var(0, false).sum().item<double>(), 0.5 * (v * v.mm(h)).var(0, false).sum().item<double>());
}

// Block Lanczos ends when the rank is reached, and the known part is then the diagonal.
TEST(Deflation, FullRankIsExact) {
  at::manual_seed(5);
  constexpr int64_t n = 40, rank = 12;
  const at::Tensor x = at::randn({rank, n}, at::kDouble), h = x.t().mm(indefinite(rank)).mm(x);
  Deflation deflation(n, n, at::kDouble);
  at::Tensor known = at::zeros({n}, at::kDouble), w = at::randn({5, n}, at::kDouble).mm(h);
  while (true) {
    const at::Tensor block = deflation.next_block(w);
    if (block.size(0) == 0) break;
    EXPECT_LE((block.mm(block.t()) - at::eye(block.size(0), at::kDouble)).abs().max().item<double>(), kTolerance);
    EXPECT_LE((block - deflation.project(block)).abs().max().item<double>(), kTolerance);
    w = deflation.known(block, 0, block.mm(h)).rest;
    known += join(deflation, block, h);
    ASSERT_LE(deflation.size(), rank);
  }
  EXPECT_EQ(deflation.size(), rank);
  EXPECT_LE(gap(known, h.diagonal()), 1e-10);  // directions of 1e-5 of the largest, found through products with H
}

}  // namespace
}  // namespace hesper
