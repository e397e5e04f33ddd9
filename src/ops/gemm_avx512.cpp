// gemm for AVX-512. A sliver of b, `kDepth` rows by one or two registers of columns, is packed on the stack, where it
// stays in the L1 cache while the rows of a pass by; a block of up to kRows rows of C is summed in registers:
//   c[i][j] = sum_k a[i][k] * sliver[k][j],   a[i][k] read where it lies and spread over a register.
// Each entry of C is summed over k in one order, whatever the block it falls in: how a caller cuts the rows or columns
// of a product over threads does not change a bit of it.
#include "ops/gemm_kernels.h"

#if defined(__x86_64__)
namespace hesper::blas {
namespace {

constexpr int64_t kBytes = 64;   // a register
constexpr int kRows = 14;        // 28 sums and 2 registers of b, of 32 registers
constexpr int64_t kDepth = 256;  // of a sliver: 32 KiB

template <class T>
using Register __attribute__((vector_size(kBytes))) = T;
template <class T>
using Unaligned __attribute__((vector_size(kBytes), aligned(sizeof(T)), may_alias)) = T;
template <class T>
constexpr int64_t kLanes = kBytes / static_cast<int64_t>(sizeof(T));

template <class T>
Register<T> load(const T* from) {
  return *reinterpret_cast<const Unaligned<T>*>(from);
}
template <class T>
void store(const Register<T>& x, T* to) {
  *reinterpret_cast<Unaligned<T>*>(to) = x;
}
int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/// c (R, V registers) = alpha a sliver + beta c. a[i][k] lies at a[i * row + k * column].
template <class T, int R, int V>
void block(int64_t depth, const T* a, int64_t row, int64_t column, const T* sliver, T alpha, T beta, T* c,
           int64_t ldc) {
  Register<T> sum[R][V] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Register<T> b[V];
    for (int v = 0; v < V; ++v) b[v] = load(sliver + (k * V + v) * kLanes<T>);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const Register<T> spread = a[i * row + k * column] - Register<T>{};
      for (int v = 0; v < V; ++v) sum[i][v] += spread * b[v];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < V; ++v) {
      T* at = c + i * ldc + v * kLanes<T>;
      store<T>(beta == T{0} ? sum[i][v] * alpha : sum[i][v] * alpha + load(at) * beta, at);
    }
}

template <class T>
using Block = void (*)(int64_t, const T*, int64_t, int64_t, const T*, T, T, T*, int64_t);
template <class T, int V>
constexpr Block<T> kBlocks[kRows] = {block<T, 1, V>,  block<T, 2, V>,  block<T, 3, V>,  block<T, 4, V>, block<T, 5, V>,
                                     block<T, 6, V>,  block<T, 7, V>,  block<T, 8, V>,  block<T, 9, V>, block<T, 10, V>,
                                     block<T, 11, V>, block<T, 12, V>, block<T, 13, V>, block<T, 14, V>};

void interleave(Register<float>& a, Register<float>& b) {
  const Register<float> x = a, y = b;
  a = __builtin_shufflevector(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  b = __builtin_shufflevector(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
void interleave(Register<double>& a, Register<double>& b) {
  const Register<double> x = a, y = b;
  a = __builtin_shufflevector(x, y, 0, 8, 1, 9, 2, 10, 3, 11);
  b = __builtin_shufflevector(x, y, 4, 12, 5, 13, 6, 14, 7, 15);
}

/// The transpose of a square of registers. Interleaving row i with row i + n/2 turns the bits of (row, lane) by one
/// place; log2(n) turns exchange row and lane.
template <class T>
void transpose(const T* from, int64_t ld, T* to, int64_t to_ld) {
  constexpr int n = static_cast<int>(kLanes<T>);
  Register<T> x[n], y[n];
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) x[i] = load(from + i * ld);
#pragma GCC unroll 4
  for (int turn = 1; turn < n; turn *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < n / 2; ++i) {
      y[2 * i] = x[i], y[2 * i + 1] = x[i + n / 2];
      interleave(y[2 * i], y[2 * i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) x[i] = y[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) store<T>(x[i], to + i * to_ld);
}

/// Rows [k, k + depth) and columns [j, j + columns) of b, with zeros up to `width` columns.
template <class T>
void pack(const Matrix<T>& b, int64_t k, int64_t depth, int64_t j, int64_t columns, int64_t width, T* sliver) {
  constexpr int64_t n = kLanes<T>;
  const int64_t whole = columns / n * n;  // columns that fill registers
  if (!b.flipped) {
    for (int64_t r = 0; r < depth; ++r) {
      const T* from = b.data + (k + r) * b.ld + j;
      T* to = sliver + r * width;
      for (int64_t s = 0; s < whole; s += n) store<T>(load(from + s), to + s);
      for (int64_t s = whole; s < width; ++s) to[s] = s < columns ? from[s] : T{0};
    }
    return;
  }
  const T* from = b.data + j * b.ld + k;
  const int64_t squares = depth / n * n;
  for (int64_t s = 0; s < whole; s += n)
    for (int64_t r = 0; r < squares; r += n) transpose(from + s * b.ld + r, b.ld, sliver + r * width + s, width);
  for (int64_t s = 0; s < width; ++s)
    for (int64_t r = s < whole ? squares : 0; r < depth; ++r)
      sliver[r * width + s] = s < columns ? from[s * b.ld + r] : T{0};
}

}  // namespace

template <class T>
void gemm_avx512(T alpha, const Matrix<T>& a, const Matrix<T>& b, T beta, T* c, int64_t ldc) {
  alignas(kBytes) T sliver[kDepth * 2 * kLanes<T>];
  alignas(kBytes) T edge[kRows * 2 * kLanes<T>];  // a block of C whose columns do not fill its registers
  const int64_t row = a.flipped ? 1 : a.ld, column = a.flipped ? a.ld : 1;
  const int64_t blocks = (a.rows + kRows - 1) / kRows;  // of equal height, or one row less
  for (int64_t k = 0; k < a.cols; k += kDepth) {
    const int64_t depth = smaller(kDepth, a.cols - k);
    const T keep = k == 0 ? beta : T{1};
    for (int64_t j = 0, width = 0; j < b.cols; j += width) {
      width = b.cols - j > kLanes<T> ? 2 * kLanes<T> : kLanes<T>;
      const Block<T>* of_height = width > kLanes<T> ? kBlocks<T, 2> : kBlocks<T, 1>;
      const int64_t columns = smaller(width, b.cols - j);
      pack(b, k, depth, j, columns, width, sliver);
      for (int64_t n = 0; n < blocks; ++n) {
        const int64_t i = a.rows * n / blocks, height = a.rows * (n + 1) / blocks - i;
        const T* from = a.data + i * row + k * column;
        T* to = c + i * ldc + j;
        if (columns == width) {
          of_height[height - 1](depth, from, row, column, sliver, alpha, keep, to, ldc);
          continue;
        }
        of_height[height - 1](depth, from, row, column, sliver, alpha, T{0}, edge, width);
        for (int64_t r = 0; r < height; ++r)
          for (int64_t s = 0; s < columns; ++s)
            to[r * ldc + s] = edge[r * width + s] + (keep == T{0} ? T{0} : keep * to[r * ldc + s]);
      }
    }
  }
}
template void gemm_avx512(float, const Matrix<float>&, const Matrix<float>&, float, float*, int64_t);
template void gemm_avx512(double, const Matrix<double>&, const Matrix<double>&, double, double*, int64_t);

}  // namespace hesper::blas
#endif
