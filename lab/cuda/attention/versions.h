#pragma once
// Every version behind one interface. A version is the production header of its day in a namespace of its own.
#include "ops/cuda/attention.h"

namespace current = hesper::attention_cuda;

#define LAB_VERSION(Name, label, space)                                                                              \
  struct Name {                                                                                                      \
    using Shape = space::Shape;                                                                                      \
    using Tape = space::Tape;                                                                                        \
    using Tangents = space::Tangents;                                                                                \
    using Products = space::Products;                                                                                \
    static const char* name() { return label; }                                                                      \
    template <class... A>                                                                                            \
    static void forward_tangent(const A&... a) {                                                                     \
      space::forward_tangent(a...);                                                                                  \
    }                                                                                                                \
    static void adjoint_tangent(const Shape& s, const Tape& t, const Tangents& dot, const float* o_dot,              \
                                const float* r, const float* o_bar_dot, int64_t directions, Products p,              \
                                const space::Adjoints& out, void* w, cudaStream_t stream) {                          \
      space::adjoint_tangent(s, t, dot, o_dot, r, o_bar_dot, directions, p, out, w, stream);                         \
    }                                                                                                                \
    static void tangent_and_form(const Shape& s, const Tape& t, const Tangents& dot, int64_t directions, Products p, \
                                 float* o_dot, float* r, const space::Adjoints& out, void* w, cudaStream_t stream) { \
      space::tangent_and_form(s, t, dot, directions, p, o_dot, r, out, w, stream);                                   \
    }                                                                                                                \
  };
LAB_VERSION(Current, "current", hesper::attention_cuda)

template <class F>
void each_version(const F& f) {
  f(Current());
}
