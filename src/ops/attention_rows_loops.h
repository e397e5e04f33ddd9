// The loops of attention_rows.h, with internal linkage: each file that includes this compiles its own.
#include "ops/attention_rows.h"

namespace hesper {
namespace {

template <class T>
T dot(int64_t n, const T* a, const T* b) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

template <class T>
void weigh(int64_t n, const T* __restrict p, T centre, T* __restrict x) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) x[i] = p[i] * (x[i] - centre);
}

template <class T>
T turn(int64_t n, const T* __restrict p, T* __restrict x) {
  const T r = dot(n, p, static_cast<const T*>(x));
  weigh(n, p, r, x);
  return r;
}

template <class T>
T turn_form(int64_t n, const T* __restrict p, const T* __restrict w, T* __restrict x, T* __restrict p_dot) {
  const T r = dot(n, p, static_cast<const T*>(x));
  T e = 0;
#pragma omp simd reduction(+ : e)
  for (int64_t i = 0; i < n; ++i) {
    const T turned = x[i] - r, w_dot = w[i] * turned;
    p_dot[i] = p[i] * turned;
    x[i] = w_dot;
    e += w_dot;
  }
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) x[i] -= p[i] * e;
  return r;
}

template <class T>
void turn_adjoint(int64_t n, const T* __restrict p, const T* __restrict w, T r, T centre, T* __restrict x,
                  T* __restrict y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T turned = x[i] - r;
    y[i] = w[i] * turned + p[i] * (y[i] - centre);
    x[i] = p[i] * turned;
  }
}

template <class T>
constexpr AttentionRows<T> kLoops{weigh<T>, turn<T>, turn_form<T>, turn_adjoint<T>, dot<T>};

}  // namespace
}  // namespace hesper
