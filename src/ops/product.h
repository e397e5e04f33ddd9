#pragma once
// Matrix products of tensors: at::mm, but through blas::gemm over the threads where that has faster kernels. Not seen
// by autograd, but by Torch's profilers (as hesper::product). A product's bits do not depend on the number of threads
// there.
#include <ATen/ATen.h>

namespace hesper {

/// a (m, k) b (k, n): (m, n) contiguous. Any strides.
at::Tensor product(const at::Tensor& a, const at::Tensor& b);
/// c (m, n) += scale * a b, in place.
void add_product(at::Tensor& c, const at::Tensor& a, const at::Tensor& b, double scale = 1.0);

}  // namespace hesper
