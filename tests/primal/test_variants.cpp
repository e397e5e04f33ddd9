// Variants that branch off the base: the same bits as a whole pass of each, and nothing read below where they begin.
#include <gtest/gtest.h>

#include <cmath>

#include "primal/primal.h"
#include "tangent/toy_models.h"

namespace hesper::test {
namespace {

/// Losses of a variant a parameter, each with all its values moved, and of one that moves the first and the last.
void expect_whole_passes(const Toy& toy, at::ScalarType working, at::ScalarType precision) {
  const Parameters base = toy.parameters(working);
  std::vector<std::vector<int>> changed;
  for (int p = 0; p < base.count(); ++p) changed.push_back({p});
  changed.push_back({base.count() - 1, 0});
  const auto variant = [&](int64_t k) {
    std::vector<std::pair<int, Tensor>> values;
    for (const int p : changed[static_cast<size_t>(k)])
      values.emplace_back(p, base.stored(p) + 0.01 * (base.stored(p) + 0.1));
    return base.with(values);
  };
  std::vector<int> met(changed.size(), 0);
  run_variants(*toy.program, base, changed, toy.tokens, precision, variant, [&](int64_t k, const Tensor& losses) {
    ++met[static_cast<size_t>(k)];
    EXPECT_TRUE(at::equal(losses, run_forward(*toy.program, variant(k), toy.tokens, precision))) << k;
    // A shift of all keys moves no probability, and whether it moves a last bit is chance.
    if (changed[static_cast<size_t>(k)].size() == 1 &&
        toy.names[changed[static_cast<size_t>(k)][0]].ends_with(".k.bias"))
      return;
    EXPECT_FALSE(at::equal(losses, run_forward(*toy.program, base, toy.tokens, precision))) << k;
  });
  EXPECT_EQ(met, std::vector<int>(changed.size(), 1));
}

TEST(Variants, SameBitsAsWholePasses) {
  for (const bool llama : {false, true})
    for (const bool tied : {false, true}) {
      const Toy toy = make_toy({.llama = llama, .kv_heads = llama ? 2 : 4, .tied = tied});
      expect_whole_passes(toy, at::kDouble, at::kDouble);
      expect_whole_passes(toy, at::kFloat, at::kFloat);
      expect_whole_passes(toy, at::kFloat, at::kDouble);
    }
}

TEST(Variants, ReadNothingBelowWhereTheyBegin) {
  const Toy toy = make_toy({});
  const Parameters base = toy.parameters();
  const int moved = toy.program->parameter("1.down.weight"), below = toy.program->parameter("0.q.weight");
  const std::pair<int, Tensor> move{moved, base.stored(moved) * 1.01};
  const std::pair<int, Tensor> poison{below, at::full_like(base.stored(below), NAN)};
  Tensor got;
  run_variants(
      *toy.program, base, {{moved}}, toy.tokens, at::kDouble,
      [&](int64_t) {
        return base.with({move, poison});
      },
      [&](int64_t, const Tensor& losses) { got = losses; });
  EXPECT_TRUE(at::equal(got, run_forward(*toy.program, base.with({move}), toy.tokens, at::kDouble)));
}

}  // namespace
}  // namespace hesper::test
