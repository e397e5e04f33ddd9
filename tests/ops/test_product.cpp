// Every way a product is computed against at::mm in fp64.
#include "ops/product.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "ops/gemm_kernels.h"

namespace hesper::test {
namespace {
using at::Tensor;

struct Size {
  int64_t m, n, k;
};
// One of each; odd ones around the kernels' 14 rows, 8, 16 and 32 columns and 256 deep slivers.
const Size kSizes[] = {{1, 1, 1},     {1, 40, 7},   {40, 1, 7},    {2, 3, 300},   {13, 17, 19},   {14, 32, 256},
                       {15, 33, 257}, {28, 16, 16}, {29, 47, 512}, {64, 49, 513}, {100, 128, 65}, {3, 7, 1000}};

template <class T>
void expect_gemm(void (*gemm)(T, const blas::Matrix<T>&, const blas::Matrix<T>&, T, T*, int64_t)) {
  const at::ScalarType dtype = at::CppTypeToScalarType<T>::value;
  for (const Size& s : kSizes)
    for (const bool flip_a : {false, true})
      for (const bool flip_b : {false, true})
        for (const T beta : {T{0}, T{1}, T{-0.5}}) {
          const T alpha = 1.5;
          // Rows lie farther apart than they are long; what lies between must stay.
          const Tensor a = at::randn(flip_a ? at::IntArrayRef{s.k, s.m + 3} : at::IntArrayRef{s.m, s.k + 3}, dtype),
                       b = at::randn(flip_b ? at::IntArrayRef{s.n, s.k + 5} : at::IntArrayRef{s.k, s.n + 5}, dtype);
          const Tensor before = beta == T{0} ? at::full({s.m, s.n + 2}, NAN, dtype) : at::randn({s.m, s.n + 2}, dtype);
          Tensor c = before.clone();
          gemm(alpha, {a.data_ptr<T>(), s.m, s.k, a.size(1), flip_a}, {b.data_ptr<T>(), s.k, s.n, b.size(1), flip_b},
               beta, c.data_ptr<T>(), s.n + 2);
          const Tensor x = (flip_a ? a.narrow(1, 0, s.m).t() : a.narrow(1, 0, s.k)).to(at::kDouble),
                       y = (flip_b ? b.narrow(1, 0, s.k).t() : b.narrow(1, 0, s.n)).to(at::kDouble);
          Tensor wanted = x.mm(y) * alpha, size = x.abs().mm(y.abs()) * alpha;
          if (beta != T{0}) {
            const Tensor old = before.narrow(1, 0, s.n).to(at::kDouble) * beta;
            wanted += old, size += old.abs();
          }
          // A sum of k rounded terms is off by at most k eps times the sum of their sizes.
          const double eps = std::numeric_limits<T>::epsilon() * static_cast<double>(s.k + 2);
          EXPECT_TRUE(((c.narrow(1, 0, s.n).to(at::kDouble) - wanted).abs() <= eps * size).all().template item<bool>())
              << s.m << " x " << s.n << " x " << s.k << " flips " << flip_a << flip_b << " beta " << beta;
          EXPECT_TRUE(at::equal(c.narrow(1, s.n, 2).nan_to_num(), before.narrow(1, s.n, 2).nan_to_num()));
        }
}

TEST(Gemm, mkl) {
  expect_gemm<float>(blas::gemm_mkl);
  expect_gemm<double>(blas::gemm_mkl);
}

#if defined(__x86_64__)
TEST(Gemm, avx512) {
  if (!__builtin_cpu_supports("avx512f")) GTEST_SKIP() << "no AVX-512 here";
  expect_gemm<float>(blas::gemm_avx512);
  expect_gemm<double>(blas::gemm_avx512);
}
#endif

TEST(Product, layouts) {
  for (const Size& s : kSizes) {
    const auto layouts = [](int64_t rows, int64_t cols) {
      return std::vector<Tensor>{at::randn({rows, cols}, at::kDouble), at::randn({cols, rows}, at::kDouble).t(),
                                 at::randn({rows, 2 * cols}, at::kDouble).slice(1, 0, 2 * cols, 2),
                                 at::randn({rows, 2 * cols}, at::kDouble).narrow(1, 1, cols),
                                 at::randn({1, cols}, at::kDouble).expand({rows, cols})};
    };
    for (const Tensor& a : layouts(s.m, s.k))
      for (const Tensor& b : layouts(s.k, s.n)) {
        const Tensor wanted = a.mm(b);
        EXPECT_TRUE(at::allclose(product(a, b), wanted, 1e-13, 1e-11));  // 1000 terms of size 1 in fp64
        Tensor c = at::ones({s.m, s.n}, at::kDouble);
        add_product(c, a, b, -2);
        EXPECT_TRUE(at::allclose(c, 1 - 2 * wanted, 1e-13, 1e-11));
      }
  }
  EXPECT_EQ(product(at::empty({3, 0}), at::empty({0, 2})).abs().sum().item<float>(), 0);
  EXPECT_EQ(product(at::empty({0, 4}), at::empty({4, 2})).size(0), 0);
}

TEST(Product, threads_change_no_bit) {
  if (!blas::own_kernels()) GTEST_SKIP() << "MKL chooses its sums by the number of threads";
  const int threads = at::get_num_threads();
  for (const Size& s : {Size{513, 129, 300}, Size{65, 1000, 300}}) {
    const Tensor a = at::randn({s.m, s.k}), b = at::randn({s.n, s.k}).t();
    at::set_num_threads(1);
    const Tensor one = product(a, b);
    at::set_num_threads(3);
    EXPECT_TRUE(at::equal(product(a, b), one));
  }
  at::set_num_threads(threads);
}

}  // namespace
}  // namespace hesper::test
