#pragma once
// The matrix products and exponentials inside libtorch_cpu (MKL), typed and in row-major terms. Called from a worker of
// at::parallel_for they stay on that worker's thread.
#include <cstdint>

extern "C" {
void sgemm_(const char* trans_a, const char* trans_b, const int* m, const int* n, const int* k, const float* alpha,
            const float* a, const int* lda, const float* b, const int* ldb, const float* beta, float* c,
            const int* ldc);
void dgemm_(const char* trans_a, const char* trans_b, const int* m, const int* n, const int* k, const double* alpha,
            const double* a, const int* lda, const double* b, const int* ldb, const double* beta, double* c,
            const int* ldc);
void vsExp(int n, const float* x, float* y);
void vdExp(int n, const double* x, double* y);
}

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

/// C (a.rows, b.cols) = alpha a b + beta C. Every size must fit in an int and be at least 1.
template <class T>
void gemm(T alpha, const Matrix<T>& a, const Matrix<T>& b, T beta, T* c, int64_t ldc) {
  // Column-major BLAS sees every array transposed: C^T = b^T a^T.
  const char ta = b.flipped ? 'T' : 'N', tb = a.flipped ? 'T' : 'N';
  const int m = static_cast<int>(b.cols), n = static_cast<int>(a.rows), k = static_cast<int>(a.cols);
  const int lda = static_cast<int>(b.ld), ldb = static_cast<int>(a.ld), ld = static_cast<int>(ldc);
  if constexpr (sizeof(T) == sizeof(float))
    sgemm_(&ta, &tb, &m, &n, &k, &alpha, b.data, &lda, a.data, &ldb, &beta, c, &ld);
  else
    dgemm_(&ta, &tb, &m, &n, &k, &alpha, b.data, &lda, a.data, &ldb, &beta, c, &ld);
}

inline void exp(int64_t n, float* x) { vsExp(static_cast<int>(n), x, x); }
inline void exp(int64_t n, double* x) { vdExp(static_cast<int>(n), x, x); }

}  // namespace hesper::blas
