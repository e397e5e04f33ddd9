#pragma once
// Matrix products and exponentials on raw row-major arrays, one thread: what runs inside a worker of at::parallel_for.
// Products are MKL's (inside libtorch_cpu), but on AMD processors with AVX-512, where MKL runs its AVX2 kernels at half
// the processor's rate, those of gemm_avx512.cpp.
#include <cstdint>

namespace hesper::blas {

/// Rows of a row-major array, `ld` elements apart; `flipped`: stands for the transpose of what is stored.
template <class T>
struct Matrix {
  const T* data = nullptr;
  int64_t rows = 0, cols = 0;  // as it stands in the product
  int64_t ld = 0;
  bool flipped = false;
};
template <class T>
Matrix<T> flip(const Matrix<T>& m) {
  return {m.data, m.cols, m.rows, m.ld, !m.flipped};
}

/// C (a.rows, b.cols) = alpha a b + beta C; C is not read where beta = 0. Every size must fit in an int and be at
/// least 1. T: float or double.
template <class T>
void gemm(T alpha, const Matrix<T>& a, const Matrix<T>& b, T beta, T* c, int64_t ldc);

/// True where gemm runs kernels of its own.
bool own_kernels();

/// x = e^x, n of them.
void exp(int64_t n, float* x);
void exp(int64_t n, double* x);

}  // namespace hesper::blas
