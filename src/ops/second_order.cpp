#include "ops/second_order.h"

#include <utility>

#include "ops/directions.h"
#include "ops/product.h"

namespace hesper {
namespace {
// A long product loses digits inside one fp32 accumulator: pieces of this many terms are added in fp32, then in fp64.
constexpr int64_t kPiece = 32768;
}  // namespace

SecondOrder::SecondOrder(const Selection& selection, const Directions& directions, at::ScalarType dtype,
                         at::Device device, Products products)
    : directions_(directions),
      options_(at::TensorOptions().device(device).dtype(dtype)),
      products_(products),
      reads_(Readout::of(selection, directions, directions.count(), device)) {}

SecondOrder SecondOrder::cut() const {
  SecondOrder out(directions_, reads_.cut());
  out.options_ = options_;
  out.products_ = products_;
  return out;
}

void SecondOrder::commit(SecondOrder& total) {
  for (auto [mine, whole] :
       {std::pair{&gauss_newton_, &total.gauss_newton_}, std::pair{&residual_, &total.residual_}}) {
    mine->flush();
    if (mine->sum.defined()) whole->move(mine->sum);
  }
  reads_.commit(total.reads_);
}

void SecondOrder::Part::add(const Tensor& a, const Tensor& b, double scale, Products products) {
  if (!a.defined() || !b.defined()) return;
  if (a.scalar_type() == at::kBFloat16) return move(long_product(a, b, products).mul_(scale));  // planes
  const int64_t k = a.size(0);
  const Tensor x = a.reshape({k, -1}), y = b.is_same(a) ? x : b.reshape({k, -1});
  if (x.is_cuda()) return move(long_product(x, y, products).mul_(scale));
  if (recent.defined() && recent.size(0) != k) flush();
  if (!recent.defined()) recent = at::zeros({k, k}, x.options());
  const int64_t m = x.size(1);
  for (int64_t i = 0; i < m; i += kPiece) {
    const int64_t len = std::min(kPiece, m - i);
    if (i > 0) {
      move(recent);
      recent.zero_();
    }
    add_product(recent, x.narrow(1, i, len), y.narrow(1, i, len).t(), scale);
  }
}

/// sum += form; the directions that `form` lacks are later ones, zero so far.
void SecondOrder::Part::move(const Tensor& form) {
  const int64_t k = form.size(0);
  if (!sum.defined() || sum.size(0) < k) {
    const Tensor wide = at::zeros({k, k}, (sum.defined() ? sum : form).options().dtype(at::kDouble));
    if (sum.defined()) wide.narrow(0, 0, sum.size(0)).narrow(1, 0, sum.size(0)).copy_(sum);
    sum = wide;
  }
  sum.narrow(0, 0, k).narrow(1, 0, k).add_(form.to(sum.device()));
}

void SecondOrder::Part::flush() {
  if (recent.defined()) move(recent);
  recent = Tensor();
}

Tensor SecondOrder::Part::symmetric() const {
  Part all{recent, sum.defined() ? sum.clone() : sum};
  all.flush();
  return (all.sum + all.sum.t()) / 2;
}

void SecondOrder::add(const Tensor& a, const Tensor& b, double scale) { residual_.add(a, b, scale, products_); }
void SecondOrder::add_matrix(const Tensor& form) { residual_.move(form); }
void SecondOrder::add_gauss_newton(const Tensor& a, const Tensor& b, double scale) {
  gauss_newton_.add(a, b, scale, products_);
}

Tensor SecondOrder::gauss_newton() const {
  const int64_t k = directions_.count();
  return gauss_newton_.any() ? gauss_newton_.symmetric().to(options_.device())
                             : at::zeros({k, k}, options_.dtype(at::kDouble));
}

Tensor SecondOrder::residual() const {
  // (K, K): v_i . reads of j
  const Tensor cross = reads_.onto_directions() ? reads_.values().t() : directions_.apply(reads_.values().t());
  const Tensor both = cross + cross.t();
  return residual_.any() ? residual_.symmetric().to(options_.device()) + both : both;
}

}  // namespace hesper
