#include "ops/op.h"

namespace hesper {

Tokens Tokens::cut(int64_t s, int64_t begin, int64_t count) const {
  const int64_t first = s * length + begin;
  return {1,
          count,
          offset + begin,
          ids.narrow(0, first, count),
          targets.narrow(0, first, count),
          weights.narrow(0, first, count)};
}

Tensor plus(const Tensor& a, const Tensor& b) {
  if (!a.defined()) return b;
  if (!b.defined()) return a;
  return a + b;
}

Kept cut_rows(const Kept& kept, int64_t begin, int64_t length) {
  Kept out;
  out.reserve(kept.size());
  for (const Tensor& t : kept) out.push_back(t.defined() ? t.narrow(0, begin, length) : t);
  return out;
}

}  // namespace hesper
