// Stands in for cuda_attention.cpp in builds without CUDA: nothing is served, so nothing else is ever called.
#include <stdexcept>

#include "ops/attention_fused.h"

namespace hesper::attention_fused {
namespace {
[[noreturn]] void absent() { throw std::logic_error("[attention] this build has no CUDA kernels"); }
}  // namespace

bool serves(const AttentionShape&, const Tensor&, Products) { return false; }
void forward_tangent(const AttentionShape&, const Tape&, Tangents&, Products) { absent(); }
Tensors adjoint_tangent(const AttentionShape&, const Tape&, const Tangents&, const Tensor&, unsigned, Products) {
  absent();
}
Tensors tangent_and_form(const AttentionShape&, const Tape&, Tangents&, Products) { absent(); }

}  // namespace hesper::attention_fused
