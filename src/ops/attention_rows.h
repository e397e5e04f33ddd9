#pragma once
// What attention_cpu.cpp does to one row of n scores between its matrix products. P is zero at keys in the future, so
// every loop runs over the whole row. No Torch here: attention_rows_avx2.cpp compiles the same loops for AVX2.
#include <cstdint>

namespace hesper {

template <class T>
struct AttentionRows {
  /// x = p (x - centre)
  void (*weigh)(int64_t n, const T* p, T centre, T* x);
  /// r = sum p x, then x = p (x - r); returns r.
  T (*turn)(int64_t n, const T* p, T* x);
  /// r = sum p x, then p_dot = p (x - r), w_dot = w (x - r) and x = w_dot - p sum(w_dot); returns r.
  T (*turn_form)(int64_t n, const T* p, const T* w, T* x, T* p_dot);
  /// y = w (x - r) + p (y - centre), then x = p (x - r).
  void (*turn_adjoint)(int64_t n, const T* p, const T* w, T r, T centre, T* x, T* y);
  T (*dot)(int64_t n, const T* a, const T* b);
};

/// The loops for this processor.
template <class T>
const AttentionRows<T>& attention_rows();

}  // namespace hesper
