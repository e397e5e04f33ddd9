#include "ops/second_order.h"

#include "ops/directions.h"

namespace hesper {
namespace {
// A long product loses digits inside one fp32 accumulator: pieces of this many terms are added in fp32, then in fp64.
constexpr int64_t kPiece = 32768;
}  // namespace

SecondOrder::SecondOrder(const Selection& selection, const Directions& directions, at::ScalarType dtype,
                         at::Device device)
    : directions_(directions), reads_(selection, directions.count(), device) {
  const int64_t k = directions.count();
  const auto options = at::TensorOptions().device(device);
  for (Part* part : {&gauss_newton_, &residual_}) {
    part->sum = at::zeros({k, k}, options.dtype(at::kDouble));
    part->recent = at::zeros({k, k}, options.dtype(dtype));
  }
}

void SecondOrder::Part::add(const Tensor& a, const Tensor& b, double scale) {
  if (!a.defined() || !b.defined()) return;
  const int64_t k = a.size(0);
  const Tensor x = a.reshape({k, -1}), y = b.reshape({k, -1});
  Tensor out = recent.narrow(0, 0, k).narrow(1, 0, k);
  const int64_t m = x.size(1);
  for (int64_t i = 0; i < m; i += kPiece) {
    const int64_t len = std::min(kPiece, m - i);
    out.addmm_(x.narrow(1, i, len), y.narrow(1, i, len).t(), 1, scale);
    if (len == kPiece) {
      dirty = true;
      flush();
    }
  }
  dirty = true;
}

void SecondOrder::Part::flush() {
  if (!dirty) return;
  sum.add_(recent);
  recent.zero_();
  dirty = false;
}

void SecondOrder::add(const Tensor& a, const Tensor& b, double scale) { residual_.add(a, b, scale); }
void SecondOrder::add_matrix(const Tensor& form) {
  const int64_t k = form.size(0);
  residual_.sum.narrow(0, 0, k).narrow(1, 0, k).add_(form);
}
void SecondOrder::add_gauss_newton(const Tensor& a, const Tensor& b, double scale) { gauss_newton_.add(a, b, scale); }

void SecondOrder::flush() {
  gauss_newton_.flush();
  residual_.flush();
}

Tensor SecondOrder::gauss_newton() const { return (gauss_newton_.sum + gauss_newton_.sum.t()) / 2; }

Tensor SecondOrder::residual() const {
  const Tensor cross = directions_.apply(reads_.values().t());  // (K, K): v_i . reads of j
  return (residual_.sum + residual_.sum.t()) / 2 + cross + cross.t();
}

}  // namespace hesper
