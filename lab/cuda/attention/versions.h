#pragma once
// Every version behind one interface: a version is the production header of its day, its namespace renamed.
#include "ops/cuda/attention.h"
#define attention_cuda attention_v1
#include "v1/ops/cuda/attention.h"
#undef attention_cuda
#define attention_cuda attention_v2
#include "v2/ops/cuda/attention.h"
#undef attention_cuda

#define LAB_VERSION(Name, label, space)                                                                              \
  struct Name {                                                                                                      \
    using Shape = space::Shape;                                                                                      \
    using Tape = space::Tape;                                                                                        \
    using Tangents = space::Tangents;                                                                                \
    using Adjoints = space::Adjoints;                                                                                \
    using Products = space::Products;                                                                                \
    static const char* name() { return label; }                                                                      \
    static size_t workspace_bytes(const Shape& s, int64_t directions) {                                              \
      return space::workspace_bytes(s, directions);                                                                  \
    }                                                                                                                \
    static void forward_tangent(const Shape& s, const Tape& t, const Tangents& dot, int64_t directions, Products p,  \
                                float* o_dot, float* r, void* w) {                                                   \
      space::forward_tangent(s, t, dot, directions, p, o_dot, r, w, nullptr);                                        \
    }                                                                                                                \
    static void adjoint_tangent(const Shape& s, const Tape& t, const Tangents& dot, const float* o_dot,              \
                                const float* r, const float* o_bar_dot, int64_t directions, Products p,              \
                                const Adjoints& out, void* w) {                                                      \
      space::adjoint_tangent(s, t, dot, o_dot, r, o_bar_dot, directions, p, out, w, nullptr);                        \
    }                                                                                                                \
    static void tangent_and_form(const Shape& s, const Tape& t, const Tangents& dot, int64_t directions, Products p, \
                                 float* o_dot, float* r, const Adjoints& out, void* w) {                             \
      space::tangent_and_form(s, t, dot, directions, p, o_dot, r, out, w, nullptr);                                  \
    }                                                                                                                \
  };
LAB_VERSION(Version1, "v1", hesper::attention_v1)
LAB_VERSION(Version2, "v2", hesper::attention_v2)
LAB_VERSION(Current, "current", hesper::attention_cuda)
#undef LAB_VERSION

template <class F>
void each_version(const F& f) {
  f(Version1()), f(Version2()), f(Current());
}
