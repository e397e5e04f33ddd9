#pragma once
// Copies of a GPU's tensors in pinned memory, which takes them several times as fast as other memory.
#include <ATen/ATen.h>

namespace hesper {

/// x itself where it is on a CPU. wait: until the copy is whole; otherwise it is so in the order of the stream.
inline at::Tensor on_host(const at::Tensor& x, bool wait) {
  if (!x.defined() || x.is_cpu()) return x;
  return at::empty(x.sizes(), x.options().device(at::kCPU).pinned_memory(true)).copy_(x, !wait);
}

}  // namespace hesper
