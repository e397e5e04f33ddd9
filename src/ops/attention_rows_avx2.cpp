#include "ops/attention_rows_loops.h"

namespace hesper {

template <class T>
const AttentionRows<T>& attention_rows_avx2();
template <class T>
const AttentionRows<T>& attention_rows_avx2() {
  return kLoops<T>;
}
template const AttentionRows<float>& attention_rows_avx2();
template const AttentionRows<double>& attention_rows_avx2();

}  // namespace hesper
