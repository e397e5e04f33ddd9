#include "ops/attention_rows.h"

#include "ops/attention_rows_loops.h"

namespace hesper {

#if defined(__x86_64__)
template <class T>
const AttentionRows<T>& attention_rows_avx2();
extern template const AttentionRows<float>& attention_rows_avx2();
extern template const AttentionRows<double>& attention_rows_avx2();
#endif

template <class T>
const AttentionRows<T>& attention_rows() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return attention_rows_avx2<T>();
#endif
  return kLoops<T>;
}
template const AttentionRows<float>& attention_rows();
template const AttentionRows<double>& attention_rows();

}  // namespace hesper
