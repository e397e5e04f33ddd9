#include "report/spectrum.h"

#include <gtest/gtest.h>

#include <cmath>

#include "temporary_folder.h"

namespace hesper {
namespace {

constexpr double rounding = 1e-13;  // eigenvalues near 1 to 10 from a backward stable float64 solver

TEST(Spectrum, DiagonalMatrix) {
  const Spectrum s = spectrum(at::diag(at::tensor({3.0, -1.0, 0.0, 2.0})));
  EXPECT_EQ(s.n, 4);
  EXPECT_NEAR(s.largest, 3, rounding);
  EXPECT_NEAR(s.smallest, -1, rounding);
  EXPECT_NEAR(s.negative_share, 1.0 / 14, rounding);
  EXPECT_EQ(s.negative_diagonal, 1);
  EXPECT_EQ(s.negative_diagonal_share, 0.25);
  const double entropy = std::log(2) / 2 + std::log(6) / 6 + std::log(3) / 3;  // shares 3/6, 1/6, 0, 2/6
  EXPECT_NEAR(s.effective_rank, std::exp(entropy), rounding);
  EXPECT_EQ(s.symmetry_error, 0);
}

TEST(Spectrum, RotatedEigenvaluesComeBack) {
  at::manual_seed(1);
  const at::Tensor lambda = at::linspace(-2, 5, 40, at::kDouble);
  const at::Tensor q = std::get<0>(at::linalg_qr(at::randn({40, 40}, at::kDouble)));
  const Spectrum s = spectrum(at::matmul(q * lambda, q.t()));
  EXPECT_NEAR(s.largest, 5, 1e-12);
  EXPECT_NEAR(s.smallest, -2, 1e-12);
  EXPECT_NEAR(s.negative_share,
              lambda.clamp_max(0).square().sum().item<double>() / lambda.square().sum().item<double>(), 1e-12);
  EXPECT_LT(s.symmetry_error, 1e-14);
}

TEST(Spectrum, IdentityZeroAndOne) {
  EXPECT_NEAR(spectrum(at::eye(7)).effective_rank, 7, rounding);
  EXPECT_NEAR(spectrum(at::ones({5, 5})).effective_rank, 1, 1e-12);  // entropy of eigenvalues at 1e-16
  const Spectrum zero = spectrum(at::zeros({3, 3}));
  EXPECT_EQ(zero.effective_rank, 0);
  EXPECT_EQ(zero.negative_share, 0);
  EXPECT_EQ(zero.symmetry_error, 0);
  EXPECT_EQ(spectrum(at::full({1, 1}, -2.0)).negative_share, 1);
}

TEST(Spectrum, SymmetryError) {
  // H - H^T = ((0, 1), (-1, 0)): norm sqrt 2; |H|_F = sqrt(1 + 4 + 1 + 1).
  const at::Tensor h = at::tensor({1.0, 2.0, 1.0, 1.0}).reshape({2, 2});
  EXPECT_NEAR(symmetry_error(h), std::sqrt(2.0 / 7), rounding);
  EXPECT_NEAR(spectrum(h).symmetry_error, std::sqrt(2.0 / 7), rounding);
  EXPECT_NEAR(spectrum(h).largest, 2.5, rounding);  // of ((1, 1.5), (1.5, 1))
  EXPECT_NEAR(spectrum(h).smallest, -0.5, rounding);
}

TEST(Spectrum, RefusesBadInput) {
  EXPECT_EQ(error_of<std::invalid_argument>([] {
              spectrum(at::zeros({2, 3}));
            }),
            "a spectrum needs a square matrix, not shape (2, 3)");
  EXPECT_THROW(spectrum(at::zeros({0, 0})), std::invalid_argument);
  EXPECT_NE(error_of<std::runtime_error>([] { spectrum(at::full({2, 2}, NAN)); }).find("4 of 4"), std::string::npos);
}

}  // namespace
}  // namespace hesper
