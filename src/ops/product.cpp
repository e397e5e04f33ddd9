#include "ops/product.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include <algorithm>

#include "ops/blas.h"

namespace hesper {
namespace {

bool ours(const at::Tensor& a, const at::Tensor& b) {
  return a.is_cpu() && (a.scalar_type() == at::kFloat || a.scalar_type() == at::kDouble) &&
         a.scalar_type() == b.scalar_type() && a.numel() > 0 && b.numel() > 0 && blas::own_kernels();
}

/// A matrix whose rows or columns are contiguous.
at::Tensor laid_out(const at::Tensor& x) {
  const bool rows = x.stride(1) == 1 && (x.size(0) == 1 || x.stride(0) >= x.size(1));
  const bool columns = x.stride(0) == 1 && (x.size(1) == 1 || x.stride(1) >= x.size(0));
  return rows || columns ? x : x.contiguous();
}

template <class T>
blas::Matrix<T> matrix_of(const at::Tensor& x) {
  const bool flipped = x.stride(1) != 1;
  return {x.const_data_ptr<T>(), x.size(0), x.size(1), flipped ? x.stride(1) : x.stride(0), flipped};
}

/// The part [begin, begin + count) of a's rows.
template <class T>
blas::Matrix<T> rows_of(const blas::Matrix<T>& a, int64_t begin, int64_t count) {
  return {a.data + begin * (a.flipped ? 1 : a.ld), count, a.cols, a.ld, a.flipped};
}

// c (m, n) contiguous = beta c + alpha a b; the longer side of c is shared out over the threads.
template <class T>
void multiply(T alpha, const blas::Matrix<T>& a, const blas::Matrix<T>& b, T beta, T* c) {
  constexpr int64_t kSmall = int64_t{1} << 20;  // multiplications that one thread does sooner than two
  const int64_t n = b.cols, longer = std::max(a.rows, n);
  const int64_t threads = a.rows * n < kSmall / a.cols ? 1 : std::min<int64_t>(at::get_num_threads(), longer);
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    const int64_t begin = longer * first / threads, count = longer * last / threads - begin;
    if (a.rows >= n)
      blas::gemm(alpha, rows_of(a, begin, count), b, beta, c + begin * n, n);
    else
      blas::gemm(alpha, a, blas::flip(rows_of(blas::flip(b), begin, count)), beta, c + begin, n);
  });
}

}  // namespace

at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  if (!ours(a, b)) return at::mm(a, b);
  RECORD_FUNCTION("hesper::product", std::vector<c10::IValue>({a, b}));
  at::Tensor c = at::empty({a.size(0), b.size(1)}, a.options());
  AT_DISPATCH_FLOATING_TYPES(c.scalar_type(), "product", [&] {
    multiply<scalar_t>(1, matrix_of<scalar_t>(laid_out(a)), matrix_of<scalar_t>(laid_out(b)), 0,
                       c.data_ptr<scalar_t>());
  });
  return c;
}

void add_product(at::Tensor& c, const at::Tensor& a, const at::Tensor& b, double scale) {
  if (!ours(a, b) || !c.is_contiguous()) {
    c.addmm_(a, b, 1, scale);
    return;
  }
  RECORD_FUNCTION("hesper::add_product", std::vector<c10::IValue>({a, b}));
  AT_DISPATCH_FLOATING_TYPES(c.scalar_type(), "add_product", [&] {
    multiply<scalar_t>(static_cast<scalar_t>(scale), matrix_of<scalar_t>(laid_out(a)), matrix_of<scalar_t>(laid_out(b)),
                       1, c.data_ptr<scalar_t>());
  });
}

}  // namespace hesper
