// Probes and moments that a GPU makes against the CPU's.
#include <gtest/gtest.h>

#include "gpu.h"
#include "hessian/diagonal_moments.h"
#include "hessian/probes.h"
#include "ops/adjoint_start.h"

namespace hesper::test {
namespace {

TEST(GpuProbes, SameSigns) {
  HESPER_NEEDS_GPU();
  Selection some;
  some.add_whole(2, {370, 110});
  some.add(1, {100, 10}, at::tensor(std::vector<int64_t>{999, 3, 128, 4, 127, 640}));
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    const at::Tensor here = rademacher(some, 5, 2, basis_probes, 6, dtype);
    for (const Selection& there : {some, some.to(gpu())})
      EXPECT_TRUE(at::equal(rademacher(there, 5, 2, basis_probes, 6, dtype, gpu()).cpu(), here));
  }
}

TEST(GpuProbes, SameSignsOfWords) {
  HESPER_NEEDS_GPU();
  const Tokens tokens{1, 5, 3, {}, {}, {}};
  const AdjointStart start{AdjointStart::Kind::factor, 7, 11, 2, 3};
  const auto options = at::TensorOptions(at::kFloat);
  EXPECT_TRUE(at::equal(start.signs_of_words(tokens, 700, 256, 444, options.device(gpu())).cpu(),
                        start.signs_of_words(tokens, 700, 256, 444, options)));
}

TEST(GpuMoments, AsOfTheCpu) {
  HESPER_NEEDS_GPU();
  at::manual_seed(1);
  const at::Tensor z = at::randn({2, 8, 5000}, at::kDouble);
  DiagonalMoments here(5000, 2), there(5000, 2);
  for (int64_t s = 0; s < 2; ++s) {
    here.begin_visit(s);
    there.begin_visit(s);
    for (const auto& [begin, end] : {std::pair{0, 5}, {5, 8}}) {
      here.add(z[s].slice(0, begin, end));
      there.add(z[s].slice(0, begin, end).to(gpu()));
    }
  }
  // fp64, tens of additions
  for (const auto& [a, b] : {std::pair{here.bars().mean, there.bars().mean},
                             {here.bars().probe, there.bars().probe},
                             {here.bars().total, there.bars().total}})
    EXPECT_LT(((a - b).norm() / b.norm()).item<double>(), 1e-13);
}

}  // namespace
}  // namespace hesper::test
