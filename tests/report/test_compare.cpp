#include "report/compare.h"

#include <gtest/gtest.h>

#include <cmath>

#include "checkpoint/safetensors.h"
#include "report/pt_file.h"
#include "temporary_folder.h"
#include "text/npy.h"

namespace hesper {
namespace {

constexpr double rounding = 1e-14;  // a few float64 roundings of numbers near 1

TEST(Compare, HandComputedMatrices) {
  const at::Tensor a = at::tensor({1.0, 2.0, 2.0, 4.0}).reshape({2, 2});
  const at::Tensor b = at::tensor({2.0, 1.0, 1.0, 2.0}).reshape({2, 2});
  // A - B = (-1, 1, 1, 2): norm sqrt 7; |B|^2 = 10, |A|^2 = 25, <A, B> = 2 + 2 + 2 + 8 = 14.
  const Comparison c = compare(a, b);
  EXPECT_EQ(c.count, 4);
  EXPECT_NEAR(c.error, std::sqrt(0.7), rounding);
  EXPECT_NEAR(c.best_scale, 14.0 / 25, rounding);
  EXPECT_NEAR(c.error_after_scale, std::sqrt(1 - 14.0 * 14 / 250), rounding);
  EXPECT_NEAR(c.cosine, 14 / std::sqrt(250), rounding);
  EXPECT_EQ(c.worst_abs, 2);
  EXPECT_EQ(c.diagonal_size, 2);
  EXPECT_TRUE(std::isnan(c.diagonal_spearman)) << "the diagonal of B is constant";
  EXPECT_EQ(c.top, 1);
  EXPECT_EQ(c.diagonal_top_overlap, 0);  // largest of A is at 1; of B, tied, at 0
  EXPECT_FALSE(c.in_bars);
  EXPECT_TRUE(to_json(c)["diagonal_spearman"].is_null());
  EXPECT_TRUE(to_json(c)["in_bars"].is_null());
}

TEST(Compare, ScaledAndMixedDtypes) {
  const at::Tensor b = at::arange(1, 10, at::kDouble).reshape({3, 3});
  const Comparison c = compare((b * 4).to(at::kFloat), b);
  EXPECT_NEAR(c.error, 3, rounding);
  EXPECT_NEAR(c.best_scale, 0.25, rounding);
  EXPECT_NEAR(c.error_after_scale, 0, rounding);
  EXPECT_NEAR(c.cosine, 1, rounding);
  EXPECT_NEAR(c.diagonal_spearman, 1, rounding);
  EXPECT_EQ(c.diagonal_top_overlap, 1);
}

TEST(Compare, SpearmanWithTies) {
  // Ranks of a: 1, 2.5, 2.5, 4; of b: 2, 1, 3, 4. About the mean 2.5: (-1.5, 0, 0, 1.5) . (-0.5, -1.5, 0.5, 1.5) = 3.
  const Comparison c = compare(at::tensor({1.0, 5.0, 5.0, 9.0}), at::tensor({3.0, 2.0, 4.0, 8.0}));
  EXPECT_NEAR(c.diagonal_spearman, 3 / std::sqrt(4.5 * 5), rounding);
}

TEST(Compare, TopOverlapOfTheWholeTensor) {
  at::Tensor a = at::zeros({4, 5}), b = at::zeros({4, 5});  // top = 2
  a[0][0] = 9, a[1][1] = -8;
  b[1][1] = 7, b[2][2] = 6;
  const Comparison c = compare(a, b);
  EXPECT_EQ(c.diagonal_size, 20);
  EXPECT_EQ(c.top, 2);
  EXPECT_EQ(c.diagonal_top_overlap, 0.5);
  const at::Tensor square = at::arange(400, at::kDouble).reshape({20, 20});
  EXPECT_EQ(compare(square, square).diagonal_size, 20);
  EXPECT_EQ(compare(square, square, std::nullopt, true).diagonal_size, 400);
}

TEST(Compare, InUnitsOfTheBars) {
  const at::Tensor a = at::tensor({1.0, 2.0, 3.0, 4.0}), b = at::tensor({2.0, 2.0, 1.0, 4.0});
  const Comparison c = compare(a, b, at::tensor({0.5, 1.0, 4.0, 0.0}));  // 2, 0, 0.5, left out
  ASSERT_TRUE(c.in_bars);
  EXPECT_EQ(c.in_bars->count, 3);
  EXPECT_NEAR(c.in_bars->max, 2, rounding);
  EXPECT_NEAR(c.in_bars->rms, std::sqrt((4 + 0.25) / 3), rounding);
  EXPECT_TRUE(std::isinf(compare(a, b, at::zeros({4})).in_bars->max));
  EXPECT_THROW(compare(a, b, at::zeros({3})), std::invalid_argument);
  EXPECT_THROW(compare(a, b, at::full({4}, -1.0)), std::runtime_error);
}

TEST(Compare, ZerosAndBadInput) {
  const at::Tensor zero = at::zeros({3, 3}), one = at::ones({3, 3});
  EXPECT_EQ(compare(zero, zero).error, 0);
  EXPECT_EQ(compare(zero, one).error, 1);
  EXPECT_TRUE(std::isinf(compare(one, zero).error));
  EXPECT_TRUE(std::isnan(compare(zero, one).cosine));
  EXPECT_EQ(error_of<std::invalid_argument>([&] {
              compare(zero, at::zeros({3, 4}));
            }),
            "cannot compare shape (3, 3) with shape (3, 4)");
  EXPECT_THROW(compare(at::zeros({0}), at::zeros({0})), std::invalid_argument);
  EXPECT_NE(error_of<std::runtime_error>([&] { compare(at::full({2}, NAN), at::zeros({2})); }).find("A holds 2 values"),
            std::string::npos);
}

TEST(ReadMatrix, EveryKindOfFile) {
  TemporaryFolder folder;
  const at::Tensor x = at::arange(6, at::kFloat).reshape({2, 3});
  write_pt(folder / "x.pt", x);
  write_npy(folder / "x.npy", x);
  write_safetensors((folder / "one.safetensors").string(), {{"h", x}});
  write_safetensors((folder / "two.safetensors").string(), {{"a.b", x}, {"c", x + 1}});
  EXPECT_TRUE(read_matrix(folder / "x.pt").equal(x));
  EXPECT_TRUE(read_matrix(folder / "x.npy").equal(x));
  EXPECT_TRUE(read_matrix(folder / "one.safetensors").equal(x));
  EXPECT_TRUE(read_matrix((folder / "two.safetensors").string() + ":c").equal(x + 1));
  const auto wrong = [&](const std::string& name) {
    return error_of<std::invalid_argument>([&] { read_matrix((folder.path / name).string()); });
  };
  EXPECT_NE(wrong("two.safetensors").find("holds 2 tensors"), std::string::npos);
  EXPECT_NE(wrong("two.safetensors").find("a.b"), std::string::npos);
  EXPECT_NE(wrong("x.pt:h").find("for .safetensors files only"), std::string::npos);
  EXPECT_NE(wrong("x.txt").find("x.txt: a .pt, .npy or .safetensors file is needed"), std::string::npos);
  EXPECT_THROW(read_matrix((folder / "two.safetensors").string() + ":nothing"), std::runtime_error);
  EXPECT_THROW(read_matrix(folder / "none.pt"), std::runtime_error);
  // A truncated .npy, one with a huge shape and one that holds objects (a pickle).
  const std::string npy = read_bytes(folder / "x.npy");
  for (size_t size = 0; size < npy.size(); ++size) {
    write_bytes(folder / "bad.npy", npy.substr(0, size));
    EXPECT_THROW(read_matrix(folder / "bad.npy"), std::runtime_error) << size;
  }
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string bytes = npy;
    bytes.replace(bytes.find(from), from.size(), to);
    write_bytes(folder / "bad.npy", bytes);
  };
  with("(2, 3), }      ", "(9999999, 9999)}");
  EXPECT_THROW(read_matrix(folder / "bad.npy"), std::runtime_error);
  with("'<f4'", "'|O8'");
  EXPECT_THROW(read_matrix(folder / "bad.npy"), std::runtime_error);
}

}  // namespace
}  // namespace hesper
