// Copies of weights share memory one after another, never at a time.
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "ops/parameters.h"

namespace hesper {
namespace {

struct WeightCopies : ::testing::Test {
  const int64_t rows = 600, cols = 700;  // more than small_parameter
  Tensors stored = {at::randn({rows, cols}, at::kFloat).to(at::kHalf),
                    at::randn({cols, rows}, at::kFloat).to(at::kHalf)};
  Parameters parameters = Parameters::streamed(stored, at::kFloat, at::kCPU, Products::full, {0, 1}, 0);
};

TEST_F(WeightCopies, AreTheWeightsInAnyPrecision) {
  for (at::ScalarType dtype : {at::kFloat, at::kDouble})
    for (int p : {0, 1}) EXPECT_TRUE(at::equal(parameters.get(p, dtype), stored[p].to(dtype)));
}

TEST_F(WeightCopies, ComeToTheSamePlace) {
  const void* place = parameters.get(0, at::kDouble).data_ptr();
  EXPECT_EQ(parameters.get(1, at::kDouble).data_ptr(), place);
  EXPECT_EQ(parameters.with(Products::tf32).get(0, at::kFloat).data_ptr(), place);
}

TEST_F(WeightCopies, StayWhileAnythingSharesThem) {
  const Tensor row = parameters.get(0, at::kFloat)[3];
  const Tensor other = parameters.get(1, at::kFloat);
  EXPECT_TRUE(at::equal(row, stored[0][3].to(at::kFloat)));
  EXPECT_TRUE(at::equal(other, stored[1].to(at::kFloat)));
}

TEST_F(WeightCopies, OutliveTheParameters) {
  const Tensor kept = [&] { return Parameters(stored, at::kFloat, at::kCPU).get(0, at::kDouble); }();
  EXPECT_TRUE(at::equal(kept, stored[0].to(at::kDouble)));
}

TEST_F(WeightCopies, EachThreadHasItsOwn) {
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&, i] {
      for (int turn = 0; turn < 20; ++turn) {
        const int p = (i + turn) % 2;
        wrong[i] += !at::equal(parameters.get(p, at::kDouble), stored[p].to(at::kDouble));
      }
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

// Kept as stored where nothing has to be converted.
TEST_F(WeightCopies, AreNotMadeOfWhatIsInThePrecisionAlready) {
  EXPECT_EQ(parameters.get(0, at::kHalf).data_ptr(), stored[0].data_ptr());
}

}  // namespace
}  // namespace hesper
