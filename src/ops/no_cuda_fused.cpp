// Stands in for cuda_fused.cpp in builds without CUDA: nothing is served, so nothing else is ever called.
#include <stdexcept>

#include "ops/fused.h"

namespace hesper::fused {
namespace {
[[noreturn]] void absent() { throw std::logic_error("[fused] this build has no CUDA kernels"); }
}  // namespace

bool serves(const Tensor&) { return false; }
bool serves(at::Device) { return false; }
bool serves_norm(const Tensor&) { return false; }
bool serves_map(const Tensor&) { return false; }
Tensor split(const Tensor&) { absent(); }
Tensor split_weight(const Tensor&, int64_t) { absent(); }
Tensors planes(const Tensor&) { absent(); }
NormTangent norm_forward(const NormTape&, const Tensor&, As) { absent(); }
NormForm norm_forward_form(const NormTape&, double, const Tensor&, As, Products) { absent(); }
Tensor norm_adjoint(const NormTape&, const Tensor&, const Tensor&, const Tensor&, const Tensor&) { absent(); }
Tensor weighted_sum(const std::vector<std::pair<Tensor, Tensor>>&, As) { absent(); }
Tensors gate_adjoint(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                     const Tensor&, As) {
  absent();
}
GateForm gate_forward_form(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, As,
                           Products) {
  absent();
}
Tensor rotary(const Tensor&, const Tensor&, const Tensor&, bool, As) { absent(); }
bool serves_logits(const Tensor&, int64_t, Products) { return false; }
Tensor logits_factor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, Products) { absent(); }
Tensor logits_planes(const Tensor&, const Tensor&, const Tensor&, const Tensor&, Products) { absent(); }

}  // namespace hesper::fused
