#pragma once
// Naive fp64 on the GPU: one thread an element of each T x T matrix. Slow, plain, and what every version is held
// against.
#include <cmath>
#include <vector>

#include "device.cuh"

namespace lab {

struct Problem {
  int tokens, heads, kv_heads, width, directions;
  bool q_dot = true, k_dot = true, v_dot = true, o_bar_dot = true;
  int q_row() const { return heads * width; }
  int kv_row() const { return kv_heads * width; }
  double scale() const { return 1 / std::sqrt(double(width)); }
};

/// C[i, j] = keep C[i, j] + alpha sum_k A[i, k] B[k, j]; strides by index.
struct Strided {
  const double* x;
  int64_t row, column;
};
static __global__ void product_kernel(Strided a, Strided b, double* c, int64_t ci, int64_t cj, double alpha,
                                      double keep, int m, int n, int depth) {
  const int j = blockIdx.x * 16 + threadIdx.x, i = blockIdx.y * 16 + threadIdx.y;
  if (i >= m || j >= n) return;
  double sum = 0;
  for (int k = 0; k < depth; ++k) sum += a.x[i * a.row + k * a.column] * b.x[k * b.row + j * b.column];
  double& out = c[i * ci + j * cj];
  out = (keep == 0 ? 0 : keep * out) + alpha * sum;
}
inline void product(Strided a, Strided b, double* c, int64_t ci, int64_t cj, double alpha, double keep, int m, int n,
                    int depth) {
  product_kernel<<<dim3((n + 15) / 16, (m + 15) / 16), dim3(16, 16)>>>(a, b, c, ci, cj, alpha, keep, m, n, depth);
}

template <class F>
__global__ void each_kernel(int64_t n, F f) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x) f(i);
}
template <class F>
void each(int64_t n, F f) {
  each_kernel<<<int(std::min<int64_t>((n + 255) / 256, 65535)), 256>>>(n, f);
}

/// All of one problem in fp64; tangents hold the direction asked for alone.
struct Reference {
  Problem p;
  Array<double> q, k, v, o, L, o_bar, Dl;                                  // the tape
  Array<double> o_dot, r, q_bar, k_bar, v_bar, q_prime, k_prime, v_prime;  // results of one direction

  Array<double> S, P, X, dP, Pd, Y, W;  // T x T

  Reference(const Problem& problem, const float* q32, const float* k32, const float* v32, const float* o_bar32)
      : p(problem) {
    const int64_t n = int64_t(p.tokens) * p.q_row(), m = int64_t(p.tokens) * p.kv_row(),
                  t2 = int64_t(p.tokens) * p.tokens;
    for (auto* x : {&q, &o, &o_bar, &o_dot, &q_bar, &q_prime}) x->resize(n);
    for (auto* x : {&k, &v, &k_bar, &v_bar, &k_prime, &v_prime}) x->resize(m);
    for (auto* x : {&L, &Dl, &r}) x->resize(int64_t(p.tokens) * p.heads);
    for (auto* x : {&S, &P, &X, &dP, &Pd, &Y, &W}) x->resize(t2);
    raise(q32, q), raise(k32, k), raise(v32, v), raise(o_bar32, o_bar);
    fill_tape();
  }

  /// o, L, Dl
  void fill_tape() {
    for (int h = 0; h < p.heads; ++h) {
      probabilities(h);
      product({P.data, p.tokens, 1}, kv(v, h), o.data + h * p.width, p.q_row(), 1, 1, 0, p.tokens, p.width, p.tokens);
      const int heads = p.heads, width = p.width, row = p.q_row();
      double *o_ = o.data, *bar = o_bar.data, *dl = Dl.data;
      each(p.tokens, [=] __device__(int64_t i) {
        double sum = 0;
        for (int c = 0; c < width; ++c) sum += o_[i * row + h * width + c] * bar[i * row + h * width + c];
        dl[i * heads + h] = sum;
      });
    }
    check(cudaDeviceSynchronize());
  }

  /// Fills the results of one direction; null = zero.
  void direction(const float* q_dot32, const float* k_dot32, const float* v_dot32, const float* o_bar_dot32) {
    Array<double> q_dot(q.size), k_dot(k.size), v_dot(v.size), o_bar_dot(q.size);
    raise(q_dot32, q_dot), raise(k_dot32, k_dot), raise(v_dot32, v_dot), raise(o_bar_dot32, o_bar_dot);
    for (auto* x : {&k_bar, &v_bar, &k_prime, &v_prime}) x->zero();
    const int T = p.tokens, D = p.width, H = p.heads, row = p.q_row();
    const int64_t t2 = int64_t(T) * T;
    for (int h = 0; h < H; ++h) {
      probabilities(h);
      double *P_ = P.data, *X_ = X.data, *dP_ = dP.data, *Pd_ = Pd.data, *Y_ = Y.data, *W_ = W.data;
      double *r_ = r.data, *dl = Dl.data;
      product(of_head(q_dot, h), flipped(kv(k, h)), X_, T, 1, p.scale(), 0, T, T, D);
      product(of_head(q, h), flipped(kv(k_dot, h)), X_, T, 1, p.scale(), 1, T, T, D);
      each(T, [=] __device__(int64_t i) {
        double sum = 0;
        for (int j = 0; j <= i; ++j) sum += P_[i * T + j] * X_[i * T + j];
        r_[i * H + h] = sum;
      });
      each(t2, [=] __device__(int64_t i) { Pd_[i] = P_[i] * (X_[i] - r_[i / T * H + h]); });
      product({Pd_, T, 1}, kv(v, h), o_dot.data + h * D, row, 1, 1, 0, T, D, T);
      product({P_, T, 1}, kv(v_dot, h), o_dot.data + h * D, row, 1, 1, 1, T, D, T);
      product(of_head(o_bar, h), flipped(kv(v, h)), dP_, T, 1, 1, 0, T, T, D);
      each(t2, [=] __device__(int64_t i) {
        dP_[i] -= dl[i / T * H + h];
        W_[i] = P_[i] * dP_[i];
      });
      product(of_head(o_bar_dot, h), flipped(kv(v, h)), Y_, T, 1, 1, 0, T, T, D);
      product(of_head(o_bar, h), flipped(kv(v_dot, h)), Y_, T, 1, 1, 1, T, T, D);
      double *o_ = o.data, *od = o_dot.data, *bar = o_bar.data, *bard = o_bar_dot.data;
      each(t2, [=] __device__(int64_t at) {
        const int64_t i = at / T;
        double dl_dot = 0;
        for (int c = h * D; c < (h + 1) * D; ++c)
          dl_dot += bard[i * row + c] * o_[i * row + c] + bar[i * row + c] * od[i * row + c];
        Y_[at] = Pd_[at] * dP_[at] + P_[at] * (Y_[at] - dl_dot);
      });
      adjoints(h, Y_, W_, o_bar_dot, q_dot, k_dot, q_bar, k_bar, v_bar);
      // Y = w (S_dot - r) - P e
      each(T, [=] __device__(int64_t i) {
        double e = 0;
        for (int j = 0; j <= i; ++j) e += W_[i * T + j] * (X_[i * T + j] - r_[i * H + h]);
        for (int j = 0; j < T; ++j) Y_[i * T + j] = W_[i * T + j] * (X_[i * T + j] - r_[i * H + h]) - P_[i * T + j] * e;
      });
      const int g = h / (H / p.kv_heads) * D, kv_row = p.kv_row();
      product({Y_, T, 1}, kv(k, h), q_prime.data + h * D, row, 1, p.scale(), 0, T, D, T);
      product({W_, T, 1}, kv(k_dot, h), q_prime.data + h * D, row, 1, 2 * p.scale(), 1, T, D, T);
      product({Y_, 1, T}, of_head(q, h), k_prime.data + g, kv_row, 1, p.scale(), 1, T, D, T);
      product({Pd_, 1, T}, of_head(o_bar, h), v_prime.data + g, kv_row, 1, 2, 1, T, D, T);
    }
    check(cudaDeviceSynchronize());
  }

  static void raise(const float* from, Array<double>& to) {
    double* const out = to.data;
    each(to.size, [=] __device__(int64_t i) { out[i] = from == nullptr ? 0. : from[i]; });
  }
  Strided of_head(const Array<double>& x, int h) const { return {x.data + h * p.width, p.q_row(), 1}; }
  Strided kv(const Array<double>& x, int h) const {
    return {x.data + h / (p.heads / p.kv_heads) * p.width, p.kv_row(), 1};
  }
  static Strided flipped(Strided x) { return {x.x, x.column, x.row}; }

  void probabilities(int h) {
    const int T = p.tokens, H = p.heads;
    product(of_head(q, h), flipped(kv(k, h)), S.data, T, 1, p.scale(), 0, T, T, p.width);
    double *S_ = S.data, *P_ = P.data, *L_ = L.data;
    each(T, [=] __device__(int64_t i) {
      double most = S_[i * T], sum = 0;
      for (int j = 0; j <= i; ++j) most = fmax(most, S_[i * T + j]);
      for (int j = 0; j <= i; ++j) sum += exp(S_[i * T + j] - most);
      L_[i * H + h] = most + log(sum);
    });
    each(int64_t(T) * T, [=] __device__(int64_t at) {
      const int64_t i = at / T, j = at % T;
      P_[at] = j <= i ? exp(S_[at] - L_[i * H + h]) : 0;
    });
  }
  void adjoints(int h, double* y, double* w, const Array<double>& o_bar_dot, const Array<double>& q_dot,
                const Array<double>& k_dot, Array<double>& q_out, Array<double>& k_out, Array<double>& v_out) {
    const int T = p.tokens, D = p.width, g = h / (p.heads / p.kv_heads) * D, kv_row = p.kv_row();
    product({y, T, 1}, kv(k, h), q_out.data + h * D, p.q_row(), 1, p.scale(), 0, T, D, T);
    product({w, T, 1}, kv(k_dot, h), q_out.data + h * D, p.q_row(), 1, p.scale(), 1, T, D, T);
    product({y, 1, T}, of_head(q, h), k_out.data + g, kv_row, 1, p.scale(), 1, T, D, T);
    product({w, 1, T}, of_head(q_dot, h), k_out.data + g, kv_row, 1, p.scale(), 1, T, D, T);
    product({Pd.data, 1, T}, of_head(o_bar, h), v_out.data + g, kv_row, 1, 1, 1, T, D, T);
    product({P.data, 1, T}, of_head(o_bar_dot, h), v_out.data + g, kv_row, 1, 1, 1, T, D, T);
  }
};

}  // namespace lab
