#pragma once
// gemm of blas.h, each way it is computed.
#include "ops/blas.h"

namespace hesper::blas {

template <class T>
void gemm_mkl(T alpha, const Matrix<T>& a, const Matrix<T>& b, T beta, T* c, int64_t ldc);

#if defined(__x86_64__)
template <class T>
void gemm_avx512(T alpha, const Matrix<T>& a, const Matrix<T>& b, T beta, T* c, int64_t ldc);
#endif

}  // namespace hesper::blas
