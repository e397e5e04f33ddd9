// Tensors -> launchers of the fused attention.
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "ops/attention_fused.h"
#include "ops/cuda/attention.h"
#include "ops/fused.h"

namespace hesper::attention_fused {
namespace {

namespace cuda = attention_cuda;

cuda::Products how(Products products) {
  return products == Products::bf16 ? cuda::Products::bf16 : cuda::Products::bf16x3;
}

/// One call: its device and stream, its workspace, and contiguous tensors behind pointers.
struct Call {
  Tensors held{};
  cuda::Shape shape;
  cuda::Tape tape;
  cuda::Tangents dot;
  int64_t directions;
  c10::cuda::CUDAGuard guard;
  c10::cuda::CUDAStream stream;
  at::TensorOptions options;
  Tensor workspace;

  Call(const AttentionShape& s, const Tape& t, const Tangents& d, const Tensor& any)
      : shape{t.q.size(0), s.heads, s.kv_heads, s.width, static_cast<float>(s.scale)},
        tape{pointer(t.q), pointer(t.k), pointer(t.v), pointer(t.o), pointer(t.L), pointer(t.o_bar), pointer(t.Dl)},
        dot{pointer(d.q), pointer(d.k), pointer(d.v)},
        directions(any.size(0)),
        guard(any.device()),
        stream(c10::cuda::getCurrentCUDAStream(any.device().index())),
        options(any.options()),
        workspace(at::empty({cuda::workspace_bytes(shape, directions)}, options.dtype(at::kByte))) {}

  const float* pointer(const Tensor& x) {
    if (!x.defined()) return nullptr;
    held.push_back(x.contiguous());
    return held.back().const_data_ptr<float>();
  }
  /// Room for tangents: of q or o, of k or v, of one number a head.
  Tensor room(int64_t width) const { return at::empty({directions, shape.tokens, width}, options); }
  Tensor room_q() const { return room(shape.heads * shape.width); }
  Tensor room_kv() const { return room(shape.kv_heads * shape.width); }
};

const Tensor& any_of(const Tangents& dot) { return dot.q.defined() ? dot.q : dot.k.defined() ? dot.k : dot.v; }

cuda::Adjoints pointers(const Tensors& x) {
  const auto of = [](const Tensor& t) { return t.defined() ? t.data_ptr<float>() : nullptr; };
  return {of(x[0]), of(x[1]), of(x[2])};
}

}  // namespace

bool serves(const AttentionShape& shape, const Tensor& x, Products products) {
  return products != Products::full && fused::serves(x) && shape.width <= 128;
}

void forward_tangent(const AttentionShape& shape, const Tape& tape, Tangents& dot, Products products) {
  Call call(shape, tape, dot, any_of(dot));
  dot.o = call.room_q();
  dot.r = call.room(shape.heads);
  cuda::forward_tangent(call.shape, call.tape, call.dot, call.directions, how(products), dot.o.data_ptr<float>(),
                        dot.r.data_ptr<float>(), call.workspace.data_ptr(), call.stream);
}

Tensors adjoint_tangent(const AttentionShape& shape, const Tape& tape, const Tangents& dot, const Tensor& o_bar_dot,
                        unsigned wanted, Products products) {
  Call call(shape, tape, dot, o_bar_dot.defined() ? o_bar_dot : any_of(dot));
  const Tensors bar = {wanted & 1u ? call.room_q() : Tensor(), wanted & 2u ? call.room_kv() : Tensor(),
                       wanted & 4u ? call.room_kv() : Tensor()};
  cuda::adjoint_tangent(call.shape, call.tape, call.dot, call.pointer(dot.o), call.pointer(dot.r),
                        call.pointer(o_bar_dot), call.directions, how(products), pointers(bar),
                        call.workspace.data_ptr(), call.stream);
  return bar;
}

Tensors tangent_and_form(const AttentionShape& shape, const Tape& tape, Tangents& dot, Products products) {
  Call call(shape, tape, dot, any_of(dot));
  dot.o = call.room_q();
  dot.r = call.room(shape.heads);
  const Tensors prime = {dot.q.defined() ? call.room_q() : Tensor(), dot.k.defined() ? call.room_kv() : Tensor(),
                         dot.v.defined() ? call.room_kv() : Tensor()};
  cuda::tangent_and_form(call.shape, call.tape, call.dot, call.directions, how(products), dot.o.data_ptr<float>(),
                         dot.r.data_ptr<float>(), pointers(prime), call.workspace.data_ptr(), call.stream);
  return prime;
}

}  // namespace hesper::attention_fused
