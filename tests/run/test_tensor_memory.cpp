// Memory of tensors follows what is in use. CTest runs each test in a process of its own.
#include "run/tensor_memory.h"

#include <gtest/gtest.h>

#include <thread>

#include "run/memory.h"

namespace hesper {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

at::Tensor full(int64_t bytes, double value) { return at::full({bytes / 8}, value, at::kDouble); }

struct TensorMemory : ::testing::Test {
  void SetUp() override { keep_tensors_in_blocks(); }
};

TEST_F(TensorMemory, OneOfNearlyTheSizeTakesThePlaceOfADroppedOne) {
  const void* place = full(4 * kMiB, 1).data_ptr();
  EXPECT_EQ(full(4 * kMiB, 2).data_ptr(), place);
  EXPECT_EQ(full(4 * kMiB - 100'000, 2).data_ptr(), place);
  const at::Tensor kept = full(4 * kMiB, 3), other = full(4 * kMiB, 4);
  EXPECT_NE(other.data_ptr(), kept.data_ptr());
  EXPECT_EQ(kept.min().item<double>(), 3);
  EXPECT_EQ(other.max().item<double>(), 4);
}

// Every second of many is dropped, then larger ones come: a heap would keep all the gaps.
TEST_F(TensorMemory, WhatIsHeldIsWhatIsInUseAndALittle) {
  const int64_t before = anonymous_memory();
  std::vector<at::Tensor> kept, dropped;
  for (int i = 0; i < 100; ++i) kept.push_back(full(kMiB, i)), dropped.push_back(full(kMiB, i));
  dropped.clear();
  for (int i = 0; i < 20; ++i) kept.push_back(full(5 * kMiB, i));
  EXPECT_LT(anonymous_memory() - before, (200 + 13 + 8) * kMiB);  // 200 in use, a 16th of it spare, 8: heap
  for (int i = 0; i < 100; ++i) EXPECT_EQ(kept[i].sum().item<double>(), i * static_cast<double>(kMiB / 8));
  kept.clear();
  release_free_memory();
  EXPECT_LT(anonymous_memory() - before, 8 * kMiB);
}

TEST_F(TensorMemory, SmallOnesStayInTheHeap) {
  std::vector<at::Tensor> small;
  for (int i = 0; i < 1000; ++i) small.push_back(full(4096, i));
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(small[i].mean().item<double>(), i);
}

TEST_F(TensorMemory, ThreadsShareIt) {
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&, i] {
      std::vector<at::Tensor> some;
      for (int turn = 0; turn < 200; ++turn) {
        const int64_t bytes = kMiB / 4 + kMiB / 8 * ((i + turn) % 7);
        some.push_back(full(bytes, i * 1000 + turn));
        if (turn % 3 == 2) some.erase(some.begin());
      }
      for (const at::Tensor& t : some) wrong[i] += t.min().item<double>() != t.max().item<double>();
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST_F(TensorMemory, SaysWhatItCannotGive) {
  try {
    at::empty({int64_t{1} << 60}, at::kByte);
    FAIL();
  } catch (const c10::Error& error) {
    EXPECT_NE(std::string(error.what()).find("out of memory: 1152921504606846976 bytes"), std::string::npos);
  }
}

// What was made before lies in the heap and is freed there.
TEST(TensorMemoryOf, TensorsMadeBefore) {
  at::Tensor early = full(4 * kMiB, 7);
  keep_tensors_in_blocks();
  at::Tensor late = early.clone();
  early.reset();
  EXPECT_EQ(late.min().item<double>(), 7);
}

}  // namespace
}  // namespace hesper
