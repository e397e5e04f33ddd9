#include "ops/op.h"

#include <algorithm>

#include "ops/product.h"

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

Tensor piecewise_product(const Tensor& x, const Tensor& y) {
  constexpr int64_t piece = 32768;
  const Tensor a = x.flatten(1), b = y.flatten(1);
  Tensor sum = at::zeros({a.size(0), b.size(0)}, a.options().dtype(at::kDouble));
  for (int64_t i = 0; i < a.size(1); i += piece) {
    const int64_t length = std::min(piece, a.size(1) - i);
    sum.add_(product(a.narrow(1, i, length), b.narrow(1, i, length).t()));
  }
  return sum;
}
bool unshared(const Tensor& x) { return x.defined() && x.use_count() == 1 && x.storage().use_count() == 1; }

Kept on_device(const Kept& kept, at::Device device) {
  Kept out;
  for (const Tensor& t : kept) out.push_back(t.defined() ? t.to(device, t.scalar_type(), true) : t);
  return out;
}

Kept cut_rows(const Kept& kept, int64_t begin, int64_t length) {
  Kept out;
  out.reserve(kept.size());
  for (const Tensor& t : kept) out.push_back(t.defined() ? t.narrow(0, begin, length) : t);
  return out;
}

}  // namespace hesper
