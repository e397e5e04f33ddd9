#pragma once
// The numbers of results, for tests that hold one run against another.
#include "run/diag.h"
#include "run/sweep.h"

namespace hesper::test {

inline Tensors all_of(const DiagonalResult& r) {
  Tensors out;
  for (const TensorDiagonal& d : r.tensors)
    for (const DiagonalBars* bars : {&d.entries, &d.sums})
      for (const Tensor& t : {bars->mean, bars->probe, bars->total}) out.push_back(t);
  out.push_back(at::scalar_tensor(r.loss, at::kDouble));
  out.push_back(at::scalar_tensor(r.products, at::kLong));
  return out;
}

inline Tensors all_of(const SweepResult& r) {
  Tensors out = {at::scalar_tensor(r.loss, at::kDouble), at::scalar_tensor(r.norm, at::kDouble),
                 at::scalar_tensor(r.products, at::kLong)};
  for (const SweepColumn& column : r.columns) {
    out.push_back(at::tensor(column.values, at::kDouble));
    out.push_back(at::tensor(column.errors, at::kDouble));
  }
  return out;
}

/// Undefined, or equal bits (NaN included).
inline bool same(const Tensor& a, const Tensor& b) {
  if (a.defined() != b.defined()) return false;
  return !a.defined() || at::allclose(a, b, 0, 0, true);
}

/// The same, or equal to `relative` of the larger norm.
inline bool near(const Tensor& a, const Tensor& b, double relative) {
  if (a.defined() != b.defined()) return false;
  if (!a.defined()) return true;
  const Tensor x = at::nan_to_num(a.to(at::kDouble)), y = at::nan_to_num(b.to(at::kDouble));
  return at::equal(a.isnan(), b.isnan()) &&
         (x - y).norm().item<double>() <= relative * std::max(x.norm().item<double>(), y.norm().item<double>());
}

}  // namespace hesper::test
