// Philox against its published vectors; the probes' signs; the reference tool's balanced signs beside ours.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "hessian/probes.h"
#include "ops/random_tensors.h"

namespace hesper {
namespace {

// Random123's kat_vectors, philox4x32 with 10 rounds.
TEST(Probes, PhiloxKnownAnswers) {
  using Four = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Four{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (Four{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  EXPECT_EQ(philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}),
            (Four{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

Selection whole(int64_t n) {
  Selection s;
  s.add_whole(3, {n / 10, 10});
  return s;
}

// N fair signs sum to a normal of variance N: 4.5 standard deviations happen by chance 7 times in a million, and the
// seed is fixed.
void expect_fair(const at::Tensor& signs) {
  EXPECT_TRUE(signs.abs().eq(1).all().item<bool>());
  EXPECT_LE(std::abs(signs.sum().item<double>()), 4.5 * std::sqrt(static_cast<double>(signs.numel())));
}

TEST(Probes, SignsAreBalancedAndIndependent) {
  const at::Tensor v = rademacher(whole(20000), 1, 7, 0, 8, at::kDouble);
  expect_fair(v);
  for (const int64_t lag : {1, 2, 31, 32, 33, 64, 127, 128, 129}) expect_fair(v.slice(1, lag) * v.slice(1, 0, -lag));
  for (int64_t k = 1; k < 8; ++k) expect_fair(v[0] * v[k]);
  expect_fair(v * rademacher(whole(20000), 1, 8, 0, 8, at::kDouble));  // another window
  expect_fair(v * rademacher(whole(20000), 2, 7, 0, 8, at::kDouble));  // another seed
  expect_fair(v * rademacher(whole(20000), 1ull << 32 | 1, 7, 0, 8, at::kDouble));
  expect_fair(v * rademacher(whole(20000), 1, 7, pilot_probes, 8, at::kDouble));
  Selection other;
  other.add_whole(4, {2000, 10});
  expect_fair(v * rademacher(other, 1, 7, 0, 8, at::kDouble));  // another parameter
}

// A weight's sign does not depend on what else is selected, nor a probe on how many are made at once.
TEST(Probes, AnySplitGivesTheSame) {
  const at::Tensor v = rademacher(whole(1000), 5, 2, 0, 6, at::kDouble);
  EXPECT_TRUE(at::equal(rademacher(whole(1000), 5, 2, 4, 2, at::kDouble), v.slice(0, 4)));
  EXPECT_TRUE(at::equal(rademacher(whole(1000), 5, 2, 0, 6, at::kFloat).to(at::kDouble), v));
  Selection some;
  const at::Tensor flat = at::tensor(std::vector<int64_t>{999, 3, 128, 4, 127, 640});
  some.add(1, {100, 10}, at::tensor(std::vector<int64_t>{5}));
  some.add(3, {100, 10}, flat);
  EXPECT_TRUE(at::equal(rademacher(some, 5, 2, 0, 6, at::kDouble).slice(1, 1), v.index_select(1, flat)));
  std::vector<double> cut(300);
  fill_signs({5, 3, 2, 1}, 77, std::span<double>(cut));
  EXPECT_TRUE(at::equal(at::tensor(cut, at::kDouble), v[1].slice(0, 77, 377)));
}

// What a GPU runs makes the same numbers (on a CPU here; on a device: test_gpu_probes.cpp).
TEST(Probes, TensorOperationsGiveTheSame) {
  for (const uint64_t seed : {uint64_t{0}, uint64_t{0xfedcba9876543210}}) {
    const ProbeKey key{seed, word_stream, 0xfffffff0u, pilot_probes};
    const at::Tensor numbers = at::tensor(std::vector<int64_t>{0, 1, 77, 0xffffffff, int64_t{1} << 32}, at::kLong);
    const at::Tensor words = random_blocks(key, 3, numbers);
    for (int64_t k = 0; k < 3; ++k)
      for (int64_t i = 0; i < numbers.numel(); ++i) {
        const auto block = random_block({seed, key.stream, key.window, key.probe + static_cast<uint32_t>(k)},
                                        numbers[i].item<int64_t>());
        for (int64_t w = 0; w < 4; ++w)
          EXPECT_EQ(static_cast<uint32_t>(words[k][i][w].item<int32_t>()), block[static_cast<size_t>(w)]);
      }
  }
  Selection some;
  some.add_whole(2, {37, 11});
  some.add(1, {100, 10}, at::tensor(std::vector<int64_t>{999, 3, 128, 4, 127, 640}));
  some.add_whole(5, {128});
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble})
    EXPECT_TRUE(at::equal(rademacher_by_tensors(some, 5, 2, basis_probes, 6, dtype, at::kCPU),
                          rademacher(some, 5, 2, basis_probes, 6, dtype)));
}

TEST(Probes, UniformsAreUniform) {
  double sum = 0, squares = 0;
  constexpr int n = 20000;
  for (int i = 0; i < n; ++i) {
    const double u = uniform({9, label_stream, 0, 0}, i);
    ASSERT_TRUE(u >= 0 && u < 1);
    sum += u, squares += u * u;
  }
  // variances of u and u^2: 1/12 and 4/45
  EXPECT_NEAR(sum / n, 0.5, 4.5 * std::sqrt(1.0 / 12 / n));
  EXPECT_NEAR(squares / n, 1.0 / 3, 4.5 * std::sqrt(4.0 / 45 / n));
}

// The reference draws vectors with as many +1 as -1 in each run of 32: E v_i v_j = -1/31 there, and its estimate of
// h_ii is h_ii - (1/31) sum of the other h_ij of the run, whatever the number of samples. H of all ones plus the
// identity: truth 2, balanced 2 - 31/31 = 1 exactly; ours 2 within its bar.
TEST(Probes, BalancedSignsAreBiasedOursAreNot) {
  constexpr int64_t n = 64, m = 4000;
  const at::Tensor h = at::ones({n, n}, at::kDouble) + at::eye(n, at::kDouble);
  at::manual_seed(3);
  at::Tensor balanced = at::empty({m, n}, at::kDouble);
  for (int64_t k = 0; k < m; ++k)
    for (int64_t run = 0; run < n; run += 32)
      balanced[k]
          .narrow(0, run, 32)
          .copy_(at::arange(32).lt(16).to(at::kDouble).mul(2).sub(1).index_select(0, at::randperm(32)));
  Selection selection;
  selection.add_whole(0, {n});
  const auto estimate = [&](const at::Tensor& v) { return v * v.mm(h); };
  const at::Tensor ours = estimate(rademacher(selection, 11, 0, 0, m, at::kDouble)), theirs = estimate(balanced);
  // Var z_i = sum of the other h_ij^2 = 63 for independent signs.
  const double bar = 4.5 * std::sqrt(63.0 / static_cast<double>(m));
  EXPECT_LE((ours.mean(0) - 2).abs().max().item<double>(), bar);
  EXPECT_LE((theirs.mean(0) - 1).abs().max().item<double>(), bar);
  // The means over all entries tell the two apart by far: the trace is exact for ours up to its own bar.
  EXPECT_NEAR(theirs.mean().item<double>(), 1, 0.05);
  EXPECT_NEAR(ours.mean().item<double>(), 2, 4.5 * std::sqrt(2.0 * 63 / n / static_cast<double>(m)));
}

}  // namespace
}  // namespace hesper
