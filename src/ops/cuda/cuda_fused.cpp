// Tensors -> launchers of the fused kernels.
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "ops/cuda/elementwise.h"
#include "ops/cuda/logits_product.h"
#include "ops/fused.h"

namespace hesper::fused {
namespace {

using cuda::Layout;

/// Makes the tensor's device current and hands out its stream.
struct On {
  explicit On(const Tensor& x) : guard(x.device()), stream(c10::cuda::getCurrentCUDAStream(x.device().index())) {}
  c10::cuda::CUDAGuard guard;
  c10::cuda::CUDAStream stream;
};

Layout layout_of(As as) { return as == As::fp32 ? Layout::fp32 : as == As::bf16x3 ? Layout::bf16x3 : Layout::bf16; }

/// Room for a result shaped like x.
Tensor room(const Tensor& x, As as) {
  std::vector<int64_t> shape = x.sizes().vec();
  if (as == As::bf16x3) shape.back() *= 3;
  return at::empty(shape, x.options().dtype(as == As::fp32 ? at::kFloat : at::kBFloat16));
}

/// Contiguous tensors behind pointers, alive as long as this is.
class Held {
 public:
  const float* operator()(const Tensor& x) {
    if (!x.defined()) return nullptr;
    held_.push_back(x.contiguous());
    TORCH_CHECK(held_.back().scalar_type() == at::kFloat && held_.back().is_cuda(), "[fused] fp32 on CUDA, not ",
                held_.back().options());
    return held_.back().const_data_ptr<float>();
  }

 private:
  Tensors held_;
};

/// Room for the planes of x (K, rows, width).
Tensor room_for_planes(const Tensor& x, Products products) {
  return at::empty({products == Products::bf16 ? 1 : 2, x.size(0), x.size(1) * x.size(2)},
                   x.options().dtype(at::kBFloat16));
}
cuda::Planes pieces(const Tensor& planes) {
  return {planes[0].data_ptr(), planes.size(0) > 1 ? planes[1].data_ptr() : nullptr};
}

cuda::NormRows rows_of(const NormTape& t, const Tensor& any, Held& held) {
  return {any.size(0), any.size(1), any.size(2), t.centred,   held(t.xh),
          held(t.inv), held(t.u),   held(t.m),   held(t.gain)};
}

}  // namespace

bool serves(at::Device device) { return device.is_cuda() && at::cuda::getDeviceProperties(device.index())->major == 9; }
bool serves(const Tensor& x) { return x.scalar_type() == at::kFloat && serves(x.device()); }
bool serves_map(const Tensor& x) { return serves(x) && x.size(-1) % 4 == 0; }
bool serves_norm(const Tensor& x) { return serves_map(x) && x.size(-1) <= 8192; }

Tensor split(const Tensor& x) {
  const On on(x);
  Held held;
  Tensor out = room(x, As::bf16x3);
  cuda::split(on.stream, held(x), x.numel() / x.size(-1), x.size(-1), out.data_ptr(), Layout::bf16x3);
  return out;
}

Tensor split_weight(const Tensor& w, int64_t axis) {
  const On on(w);
  Held held;
  const int64_t r = w.size(0), c = w.size(1);
  Tensor out = axis == 0 ? at::empty({3 * r, c}, w.options().dtype(at::kBFloat16))
                         : at::empty({r, 3 * c}, w.options().dtype(at::kBFloat16));
  cuda::split_weight(on.stream, held(w), r, c, out.data_ptr(), axis == 0 ? r * c : c, axis == 0 ? c : 3 * c);
  return out;
}

Tensors planes(const Tensor& x) {
  const On on(x);
  Held held;
  const Tensor both = at::empty({2, x.size(0), x.size(1)}, x.options().dtype(at::kBFloat16));
  const Tensor hi = both[0], lo = both[1];
  cuda::split_planes(on.stream, held(x), x.numel(), hi.data_ptr(), lo.data_ptr());
  return {hi, lo};
}

NormTangent norm_forward(const NormTape& tape, const Tensor& x_dot, As as) {
  const On on(x_dot);
  Held held;
  NormTangent out{at::empty(x_dot.sizes(), x_dot.options()),
                  at::empty({x_dot.size(0), x_dot.size(1), 1}, x_dot.options()), room(x_dot, as)};
  cuda::norm_forward(on.stream, rows_of(tape, x_dot, held), held(x_dot), out.xh_dot.data_ptr<float>(),
                     out.s.data_ptr<float>(), out.y_dot.data_ptr(), layout_of(as));
  return out;
}

NormForm norm_forward_form(const NormTape& tape, double eps, const Tensor& x_dot, As as, Products products) {
  const On on(x_dot);
  Held held;
  const Tensor s = at::empty({x_dot.size(0), x_dot.size(1)}, x_dot.options());
  NormForm out{room(x_dot, as), room_for_planes(x_dot, products), room_for_planes(x_dot, products), s,
               at::empty_like(s)};
  cuda::norm_forward_form(on.stream, rows_of(tape, x_dot, held), static_cast<float>(eps), held(x_dot), pieces(out.left),
                          pieces(out.right), s.data_ptr<float>(), out.e.data_ptr<float>(), out.y_dot.data_ptr(),
                          layout_of(as));
  return out;
}

Tensor norm_adjoint(const NormTape& tape, const Tensor& y_bar_dot, const Tensor& xh_dot, const Tensor& s,
                    const Tensor& sum) {
  const Tensor& any = y_bar_dot.defined() ? y_bar_dot : xh_dot;
  const On on(any);
  Held held;
  Tensor out = sum.defined() && sum.is_contiguous() ? sum : at::empty(any.sizes(), any.options());
  cuda::norm_adjoint(on.stream, rows_of(tape, any, held), held(y_bar_dot), held(xh_dot), held(s), held(sum),
                     out.data_ptr<float>());
  return out;
}

Tensor weighted_sum(const std::vector<std::pair<Tensor, Tensor>>& terms, As as) {
  const float *x[3], *w[3];
  int count = 0;
  Held held;
  Tensor any;
  for (const auto& [tangent, weight] : terms) {
    if (!tangent.defined() || !weight.defined()) continue;
    any = tangent;
    x[count] = held(tangent), w[count] = held(weight), ++count;
  }
  const On on(any);
  Tensor out = room(any, as);
  cuda::weighted_sum(on.stream, any.size(0), any.size(1), any.size(2), count, x, w, out.data_ptr(), layout_of(as));
  return out;
}

Tensors gate_adjoint(const Tensor& h, const Tensor& a_dot, const Tensor& u_dot, const Tensor& a, const Tensor& u,
                     const Tensor& aa, const Tensor& au, As as) {
  const On on(h);
  Held held;
  Tensor a_out = room(h, as), u_out = room(h, as);
  cuda::gate_adjoint(on.stream, h.size(0), h.size(1), h.size(2), held(h), held(a_dot), held(u_dot), held(a), held(u),
                     held(aa), held(au), a_out.data_ptr(), u_out.data_ptr(), layout_of(as));
  return {a_out, u_out};
}

GateForm gate_forward_form(const Tensor& a_dot, const Tensor& u_dot, const Tensor& a, const Tensor& u, const Tensor& aa,
                           const Tensor& au, As as, Products products) {
  const On on(a_dot);
  Held held;
  GateForm out{room(a_dot, as), room_for_planes(a_dot, products), room_for_planes(a_dot, products)};
  cuda::gate_forward_form(on.stream, a_dot.size(0), a_dot.size(1), a_dot.size(2), held(a_dot), held(u_dot), held(a),
                          held(u), held(aa), held(au), pieces(out.left), pieces(out.right), out.y_dot.data_ptr(),
                          layout_of(as));
  return out;
}

Tensor rotary(const Tensor& x, const Tensor& cos, const Tensor& sin, bool back, As as) {
  const On on(x);
  Held held;
  Tensor out = room(x, as);
  const int64_t half = cos.size(1);
  cuda::rotary(on.stream, x.size(0), x.size(1), x.size(2) / (2 * half), half, held(x), held(cos), held(sin),
               back ? -1 : 1, out.data_ptr(), layout_of(as));
  return out;
}

bool serves_logits(const Tensor& x_dot, int64_t words, Products products) {
  return serves(x_dot) && splits(products) && x_dot.size(-1) % 8 == 0 && words % 8 == 0;
}

namespace {
/// Runs the product with y's pieces at `hi` and `lo`; row: entries from one token's to the next.
void logits_product(const Tensor& left, const Tensor& u, const Tensor& f, const Tensor& mean, Products products,
                    void* hi, void* lo, int64_t row) {
  const On on(left);
  Held held;
  const Tensor x = left.contiguous(), right = right_factor(u.t(), products).t().contiguous();  // (n, inner)
  const int64_t inner = right.size(1);                                                         // 3C, 2C or C
  const Tensor there = x.narrow(2, x.size(2) - inner, inner);  // of [hi | lo | hi] what meets it
  const cuda::LogitsProduct p{
      x.size(0),  x.size(1), f.size(1), inner, there.const_data_ptr(), x.size(2), right.const_data_ptr(), held(f),
      held(mean), hi,        lo,        row};
  const Tensor workspace = at::empty({cuda::workspace_bytes(p)}, f.options().dtype(at::kByte));
  cuda::logits_product(on.stream, p, workspace.data_ptr());
}
}  // namespace

Tensor logits_factor(const Tensor& left, const Tensor& u, const Tensor& f, const Tensor& mean, Products products) {
  const int64_t rows = left.size(0) * left.size(1), words = u.size(0), planes = products == Products::bf16 ? 1 : 2;
  const Tensor y = at::empty({rows, planes * words}, left.options());
  void *first = y.data_ptr(), *second = planes == 2 ? y.narrow(1, words, words).data_ptr() : nullptr;
  if (second && u.scalar_type() == at::kBFloat16) std::swap(first, second);
  logits_product(left, u, f, mean, products, first, second, planes * words);
  return y;
}

Tensor logits_planes(const Tensor& left, const Tensor& u, const Tensor& f, const Tensor& mean, Products products) {
  const int64_t k = left.size(0), rows = left.size(1), words = u.size(0), planes = products == Products::bf16 ? 1 : 2;
  const Tensor y = at::empty({planes, k, rows * words}, left.options());
  logits_product(left, u, f, mean, products, y.data_ptr(), planes == 2 ? y[1].data_ptr() : nullptr, words);
  return y;
}

}  // namespace hesper::fused
