#include "ops/blas.h"

#include "ops/gemm_kernels.h"

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

template <class T>
void gemm_mkl(T alpha, const Matrix<T>& a, const Matrix<T>& b, T beta, T* c, int64_t ldc) {
  // Column-major BLAS sees every array transposed: C^T = b^T a^T.
  const char ta = b.flipped ? 'T' : 'N', tb = a.flipped ? 'T' : 'N';
  const int m = static_cast<int>(b.cols), n = static_cast<int>(a.rows), k = static_cast<int>(a.cols);
  const int lda = static_cast<int>(b.ld), ldb = static_cast<int>(a.ld), ld = static_cast<int>(ldc);
  if constexpr (sizeof(T) == sizeof(float))
    sgemm_(&ta, &tb, &m, &n, &k, &alpha, b.data, &lda, a.data, &ldb, &beta, c, &ld);
  else
    dgemm_(&ta, &tb, &m, &n, &k, &alpha, b.data, &lda, a.data, &ldb, &beta, c, &ld);
}
template void gemm_mkl(float, const Matrix<float>&, const Matrix<float>&, float, float*, int64_t);
template void gemm_mkl(double, const Matrix<double>&, const Matrix<double>&, double, double*, int64_t);

bool own_kernels() {
#if defined(__x86_64__)
  return __builtin_cpu_is("amd") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

template <class T>
void gemm(T alpha, const Matrix<T>& a, const Matrix<T>& b, T beta, T* c, int64_t ldc) {
#if defined(__x86_64__)
  if (own_kernels()) return gemm_avx512(alpha, a, b, beta, c, ldc);
#endif
  gemm_mkl(alpha, a, b, beta, c, ldc);
}
template void gemm(float, const Matrix<float>&, const Matrix<float>&, float, float*, int64_t);
template void gemm(double, const Matrix<double>&, const Matrix<double>&, double, double*, int64_t);

void exp(int64_t n, float* x) { vsExp(static_cast<int>(n), x, x); }
void exp(int64_t n, double* x) { vdExp(static_cast<int>(n), x, x); }

}  // namespace hesper::blas
