// Weights that visit a GPU are those of the host, whatever the order in which they are asked for.
#include <gtest/gtest.h>

#include <random>

#include "gpu.h"
#include "ops/weight_stream.h"

namespace hesper::test {
namespace {

class GpuWeightStream : public testing::Test {
 protected:
  void SetUp() override {
    HESPER_NEEDS_GPU();
    at::manual_seed(5);
    // Up to 40 MB in fp16 and fp32: some take several pieces of pinned memory, some a fraction of one.
    for (int p = 0; p < 12; ++p) {
      const auto dtype = p % 2 == 0 ? at::kHalf : at::kFloat;
      stored.push_back(at::randn({(p % 5 + 1) * 1000, 2000 + p}).to(dtype));
      order.push_back(p);
      sums.push_back(stored.back().to(at::kDouble).sum().item<double>());
    }
  }
  /// Uses the visitor in a product that takes the GPU a while, then compares it with the host's.
  void expect_visit(WeightStream& stream, int p) const {
    const at::Tensor there = stream.fetch(p), busy = at::randn({2048, 2048}, there.options().dtype(at::kFloat));
    at::Tensor x = busy;
    for (int i = 0; i < 4; ++i) x = x.mm(busy).div_(100);
    visits.emplace_back(p, there.to(at::kDouble).sum() + 0 * x.sum().nan_to_num(0, 0, 0));
  }
  void expect_all_right() const {
    for (const auto& [p, sum] : visits) EXPECT_NEAR(sum.item<double>(), sums[p], 1e-9 * stored[p].numel()) << p;
  }
  Tensors stored;
  std::vector<int> order;
  std::vector<double> sums;
  mutable std::vector<std::pair<int, at::Tensor>> visits;
};

TEST_F(GpuWeightStream, UpAndDown) {
  for (const int64_t megabytes : {1, 60, 1000}) {  // less than one of them, a few, all
    WeightStream stream(stored, order, gpu(), megabytes << 20);
    for (int round = 0; round < 2; ++round) {
      for (int p = 0; p < 12; ++p) expect_visit(stream, p);
      for (int p = 11; p >= 0; --p) expect_visit(stream, p);
    }
  }
  expect_all_right();
}

TEST_F(GpuWeightStream, AnyOrder) {
  WeightStream stream(stored, order, gpu(), int64_t{80} << 20);
  std::mt19937 random(7);
  for (int i = 0; i < 100; ++i) expect_visit(stream, static_cast<int>(random() % 12));
  expect_all_right();
}

TEST_F(GpuWeightStream, EndsWhileCopying) {
  for (int i = 0; i < 5; ++i) WeightStream(stored, order, gpu(), int64_t{500} << 20).fetch(3);
}

}  // namespace
}  // namespace hesper::test
