#include "ops/attention_cpu.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "ops/attention_heads.h"
#include "ops/attention_rows.h"
#include "ops/blas.h"

namespace hesper::attention_cpu {
namespace {
using blas::flip;
using blas::gemm;
using blas::Matrix;

constexpr int64_t kBlockBytes = 256 << 10;   // of one (rows, keys) matrix: four of them fit in a core's L2 cache
constexpr int64_t kScratchBytes = 64 << 20;  // of K', V' and Q' of a task
constexpr int64_t kPack = 64;                // directions packed at once for the form's products

int64_t block_rows(int64_t tokens, int64_t element_size) {
  const int64_t fit = kBlockBytes / (tokens * element_size);
  return std::min(tokens, fit >= 64 ? int64_t{64} : int64_t{32});
}
// Rows of a block do not start a power of two apart.
int64_t block_ld(int64_t tokens) { return (tokens + 15) / 16 * 16 + 16; }

int64_t form_elements_per_direction(const AttentionShape& shape, int64_t tokens, int64_t rows) {
  return (2 * tokens + rows) * shape.width;
}

/// Directions a task: `heads` x (chunks) tasks over the threads with the least left for the last one. Each direction
/// costs `products` tile products and each task `shared` more.
int64_t chunk_of(int64_t heads, int64_t directions, int64_t most, int64_t products, int64_t shared, int64_t threads) {
  int64_t best = 1, best_cost = INT64_MAX;
  for (int64_t chunk = std::min(most, directions); chunk >= 1; --chunk) {
    const int64_t tasks = heads * ((directions + chunk - 1) / chunk);
    const int64_t cost = (tasks + threads - 1) / threads * (chunk * products + shared);
    if (cost < best_cost) best = chunk, best_cost = cost;
  }
  return best;
}

template <class T>
class Sweep {
 public:
  Sweep(const AttentionShape& shape, const Tape& tape, const Tangents& dot)
      : shape_(shape),
        scale_(static_cast<T>(shape.scale)),
        tokens_(tape.q.size(0)),
        rows_(block_rows(tokens_, sizeof(T))),
        ld_(block_ld(tokens_)),
        q_(tape.q, shape.width),
        k_(tape.k, shape.width),
        v_(tape.v, shape.width),
        o_(tape.o, shape.width),
        o_bar_(tape.o_bar, shape.width),
        l_(tape.L, 1),
        dl_(tape.Dl, 1),
        q_dot_(dot.q, shape.width),
        k_dot_(dot.k, shape.width),
        v_dot_(dot.v, shape.width),
        o_dot_(dot.o, shape.width),
        r_(dot.r, 1),
        options_(tape.q.options()) {}

  void forward(const Heads<T>& o, const Heads<T>& l) {
    each_task(shape_.heads, 1, 1, panel(), [&](int64_t head, int64_t, int64_t, T* s) {
      for (int64_t begin = 0; begin < tokens_; begin += rows_) {
        const Block b = block(head, begin);
        gemm(scale_, q_.rows(0, begin, b.rows, head), flip(visible(k_, 0, b)), T{0}, s, ld_);
        for (int64_t i = 0; i < b.rows; ++i) *l.row(0, begin + i, head) = softmax(s + i * ld_, begin + i + 1, b.keys);
        gemm<T>(1, {s, b.rows, b.keys, ld_}, visible(v_, 0, b), 0, o.row(0, begin, head), o.stride);
      }
    });
  }

  void forward_tangent(int64_t directions) {
    const int64_t chunk = chunk_of(shape_.heads, directions, directions, 4, 1, at::get_num_threads());
    each_task(shape_.heads, directions, chunk, 2 * panel(), [&](int64_t head, int64_t j0, int64_t j1, T* scratch) {
      T *p = scratch, *x = p + panel();
      for (int64_t begin = 0; begin < tokens_; begin += rows_) {
        const Block b = block(head, begin);
        probabilities(b, p);
        for (int64_t j = j0; j < j1; ++j) {
          if (score_tangent(b, j, x))
            for (int64_t i = 0; i < b.rows; ++i)
              *r_.row(j, begin + i, head) = loops_.turn(b.keys, p + i * ld_, x + i * ld_);
          output_tangent(b, j, p, x);
        }
      }
    });
  }

  Tensors adjoint_tangent(int64_t directions, const Tensor& o_bar_dot, unsigned wanted) {
    const auto make = [&](int input, int64_t heads, bool zero) {
      if ((wanted >> input & 1u) == 0) return Tensor();
      const std::array<int64_t, 3> size{directions, tokens_, heads * shape_.width};
      return zero ? at::zeros(size, options_) : at::empty(size, options_);
    };
    const Tensors bar{make(0, shape_.heads, false), make(1, shape_.kv_heads, true), make(2, shape_.kv_heads, true)};
    const Heads<T> q_bar(bar[0], shape_.width), k_bar(bar[1], shape_.width), v_bar(bar[2], shape_.width);
    const Heads<T> o_bar_dot_(o_bar_dot, shape_.width);
    const int64_t chunk = chunk_of(shape_.kv_heads, directions, directions, 10, 2, at::get_num_threads());
    each_task(shape_.kv_heads, directions, chunk, 4 * panel(), [&](int64_t g, int64_t j0, int64_t j1, T* scratch) {
      T *p = scratch, *w = p + panel(), *x = w + panel(), *y = x + panel();
      each_block(g, [&](const Block& b) {
        probabilities(b, p);
        if (r_) score_adjoint(b, p, w);
        for (int64_t j = j0; j < j1; ++j) {
          // y = dP_dot, then dS_dot; x = S_dot, then P_dot
          T beta = 0;
          if (o_bar_dot_) {
            gemm<T>(1, o_bar_dot_.rows(j, b.begin, b.rows, b.head), flip(visible(v_, 0, b)), 0, y, ld_);
            beta = 1;
          }
          if (v_dot_)
            gemm<T>(1, o_bar_.rows(0, b.begin, b.rows, b.head), flip(visible(v_dot_, j, b)), beta, y, ld_);
          else if (beta == 0)
            std::fill(y, y + b.rows * ld_, T{0});
          if (r_) score_tangent(b, j, x);
          for (int64_t i = 0; i < b.rows; ++i) {
            const int64_t t = b.begin + i, at = i * ld_;
            T dl_dot = 0;
            if (o_bar_dot_) dl_dot += loops_.dot(shape_.width, o_bar_dot_.row(j, t, b.head), o_.row(0, t, b.head));
            if (o_dot_) dl_dot += loops_.dot(shape_.width, o_bar_.row(0, t, b.head), o_dot_.row(j, t, b.head));
            if (r_)
              loops_.turn_adjoint(b.keys, p + at, w + at, *r_.row(j, t, b.head), dl_dot, x + at, y + at);
            else
              loops_.weigh(b.keys, p + at, dl_dot, y + at);
          }
          const auto in = [&](const T* m) { return Matrix<T>{m, b.rows, b.keys, ld_}; };
          if (q_bar) {
            T* out = q_bar.row(j, b.begin, b.head);
            gemm(scale_, in(y), visible(k_, 0, b), T{0}, out, q_bar.stride);
            if (k_dot_) gemm(scale_, in(w), visible(k_dot_, j, b), T{1}, out, q_bar.stride);
          }
          if (k_bar) {
            T* out = k_bar.row(j, 0, g);
            gemm(scale_, flip(in(y)), q_.rows(0, b.begin, b.rows, b.head), T{1}, out, k_bar.stride);
            if (q_dot_) gemm(scale_, flip(in(w)), q_dot_.rows(j, b.begin, b.rows, b.head), T{1}, out, k_bar.stride);
          }
          if (v_bar) {
            T* out = v_bar.row(j, 0, g);
            if (r_) gemm<T>(1, flip(in(x)), o_bar_.rows(0, b.begin, b.rows, b.head), 1, out, v_bar.stride);
            if (o_bar_dot_) gemm<T>(1, flip(in(p)), o_bar_dot_.rows(j, b.begin, b.rows, b.head), 1, out, v_bar.stride);
          }
        }
      });
    });
    return bar;
  }

  /// form (G, K, K) fp64, zero on entry: one matrix a key/value head.
  void tangent_and_form(int64_t directions, const Tensor& form) {
    const int64_t width = shape_.width, threads = at::get_num_threads();
    const int64_t each = form_elements_per_direction(shape_, tokens_, rows_);
    const int64_t most = std::max<int64_t>(1, kScratchBytes / (each * static_cast<int64_t>(sizeof(T))));
    const int64_t chunk = chunk_of(shape_.kv_heads, directions, most, 8, 2, threads);
    const int64_t pack = std::min(directions, kPack);
    const int64_t need = 4 * panel() + chunk * each + pack * (rows_ * width + chunk);
    each_task(shape_.kv_heads, directions, chunk, need, [&](int64_t g, int64_t j0, int64_t j1, T* scratch) {
      T *p = scratch, *w = p + panel(), *x = w + panel(), *y = x + panel();
      T *k_prime = y + panel(), *v_prime = k_prime + (j1 - j0) * tokens_ * width;  // (chunk, T, D)
      T *q_prime = v_prime + (j1 - j0) * tokens_ * width, *packed = q_prime + (j1 - j0) * rows_ * width;
      std::fill(k_prime, q_prime, T{0});
      double* out = form.data_ptr<double>() + (g * directions * directions + j0);
      // out_ij += x_dot_i . x'_j over `count` tokens from `begin`; x' holds each direction `step` elements apart.
      const auto reduce = [&](const Heads<const T>& dot, int64_t head, int64_t begin, int64_t count, const T* prime,
                              int64_t step) {
        const int64_t m = count * width, columns = j1 - j0;
        T* sums = packed + pack * rows_ * width;
        for (int64_t i0 = 0; i0 < directions; i0 += pack) {
          const int64_t n = std::min(pack, directions - i0);
          for (int64_t i = 0; i < n; ++i)
            for (int64_t t = 0; t < count; ++t)
              std::copy_n(dot.row(i0 + i, begin + t, head), width, packed + i * m + t * width);
          gemm<T>(1, {packed, n, m, m}, flip(Matrix<T>{prime, columns, m, step}), 0, sums, columns);
          for (int64_t i = 0; i < n; ++i)
            for (int64_t j = 0; j < columns; ++j) out[(i0 + i) * directions + j] += sums[i * columns + j];
        }
      };
      each_block(g, [&](const Block& b) {
        probabilities(b, p);
        if (r_) score_adjoint(b, p, w);
        for (int64_t j = j0; j < j1; ++j) {
          // x = S_dot, then w_dot; y = P_dot
          if (score_tangent(b, j, x))
            for (int64_t i = 0; i < b.rows; ++i)
              *r_.row(j, b.begin + i, b.head) =
                  loops_.turn_form(b.keys, p + i * ld_, w + i * ld_, x + i * ld_, y + i * ld_);
          output_tangent(b, j, p, y);
          if (!r_) continue;
          const auto in = [&](const T* m) { return Matrix<T>{m, b.rows, b.keys, ld_}; };
          if (q_dot_) {
            T* at = q_prime + (j - j0) * b.rows * width;
            gemm(scale_, in(x), visible(k_, 0, b), T{0}, at, width);
            if (k_dot_) gemm(2 * scale_, in(w), visible(k_dot_, j, b), T{1}, at, width);
          }
          if (k_dot_)
            gemm(scale_, flip(in(x)), q_.rows(0, b.begin, b.rows, b.head), T{1}, k_prime + (j - j0) * tokens_ * width,
                 width);
          if (v_dot_)
            gemm<T>(2, flip(in(y)), o_bar_.rows(0, b.begin, b.rows, b.head), 1, v_prime + (j - j0) * tokens_ * width,
                    width);
        }
        if (r_ && q_dot_) reduce(q_dot_, b.head, b.begin, b.rows, q_prime, b.rows * width);
      });
      for (int64_t begin = 0; r_ && begin < tokens_; begin += rows_) {
        const int64_t count = std::min(rows_, tokens_ - begin);
        if (k_dot_) reduce(k_dot_, g, begin, count, k_prime + begin * width, tokens_ * width);
        if (v_dot_) reduce(v_dot_, g, begin, count, v_prime + begin * width, tokens_ * width);
      }
    });
  }

 private:
  int64_t panel() const { return rows_ * ld_; }

  Block block(int64_t head, int64_t begin) const {
    const int64_t rows = std::min(rows_, tokens_ - begin);
    return {head, head / (shape_.heads / shape_.kv_heads), begin, rows, begin + rows};
  }
  template <class F>
  void each_block(int64_t kv_head, const F& f) const {
    const int64_t group = shape_.heads / shape_.kv_heads;
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
      for (int64_t begin = 0; begin < tokens_; begin += rows_) f(block(head, begin));
  }
  /// f(head, first direction, end, scratch), heads x chunks of them over the threads.
  template <class F>
  void each_task(int64_t heads, int64_t directions, int64_t chunk, int64_t scratch_elements, const F& f) const {
    const int64_t chunks = (directions + chunk - 1) / chunk;
    at::parallel_for(0, heads * chunks, 1, [&](int64_t first, int64_t last) {
      const Tensor scratch = at::empty({scratch_elements}, options_);
      for (int64_t task = first; task < last; ++task) {
        const int64_t j0 = task % chunks * chunk;
        f(task / chunks, j0, std::min(directions, j0 + chunk), scratch.data_ptr<T>());
      }
    });
  }

  template <class U>
  Matrix<T> visible(const Heads<U>& x, int64_t direction, const Block& b) const {
    return x.rows(direction, 0, b.keys, b.kv_head);
  }

  // A row of scores becomes its softmax over the keys seen so far, zero in the future; returns logsumexp.
  T softmax(T* row, int64_t seen, int64_t keys) const {
    const T most = *std::max_element(row, row + seen);
    for (int64_t k = 0; k < seen; ++k) row[k] -= most;
    blas::exp(seen, row);
    T sum = 0;
    for (int64_t k = 0; k < seen; ++k) sum += row[k];
    for (int64_t k = 0; k < seen; ++k) row[k] /= sum;
    std::fill(row + seen, row + keys, T{0});
    return most + std::log(sum);
  }
  // P = exp(c Q K^T - L), zero in the future
  void probabilities(const Block& b, T* p) const {
    gemm(scale_, q_.rows(0, b.begin, b.rows, b.head), flip(visible(k_, 0, b)), T{0}, p, ld_);
    for (int64_t i = 0; i < b.rows; ++i) {
      T* row = p + i * ld_;
      const T l = *l_.row(0, b.begin + i, b.head);
      const int64_t seen = b.begin + i + 1;
      for (int64_t k = 0; k < seen; ++k) row[k] -= l;
      blas::exp(seen, row);
      std::fill(row + seen, row + b.keys, T{0});
    }
  }
  // w = dS = P (O_bar V^T - Dl)
  void score_adjoint(const Block& b, const T* p, T* w) const {
    gemm<T>(1, o_bar_.rows(0, b.begin, b.rows, b.head), flip(visible(v_, 0, b)), 0, w, ld_);
    for (int64_t i = 0; i < b.rows; ++i)
      loops_.weigh(b.keys, p + i * ld_, *dl_.row(0, b.begin + i, b.head), w + i * ld_);
  }
  // x = c (Q_dot K^T + Q K_dot^T); false if neither moves
  bool score_tangent(const Block& b, int64_t j, T* x) const {
    T beta = 0;
    if (q_dot_) {
      gemm(scale_, q_dot_.rows(j, b.begin, b.rows, b.head), flip(visible(k_, 0, b)), T{0}, x, ld_);
      beta = 1;
    }
    if (k_dot_) gemm(scale_, q_.rows(0, b.begin, b.rows, b.head), flip(visible(k_dot_, j, b)), beta, x, ld_);
    return q_dot_ || k_dot_;
  }
  // O_dot = P_dot V + P V_dot
  void output_tangent(const Block& b, int64_t j, const T* p, const T* p_dot) const {
    T* out = o_dot_.row(j, b.begin, b.head);
    if (r_) gemm<T>(1, {p_dot, b.rows, b.keys, ld_}, visible(v_, 0, b), 0, out, o_dot_.stride);
    if (v_dot_) gemm<T>(1, {p, b.rows, b.keys, ld_}, visible(v_dot_, j, b), r_ ? 1 : 0, out, o_dot_.stride);
  }

  const AttentionRows<T>& loops_ = attention_rows<T>();
  const AttentionShape shape_;
  const T scale_;
  const int64_t tokens_, rows_, ld_;  // T; rows of a block; elements between them
  const Heads<const T> q_, k_, v_, o_, o_bar_, l_, dl_, q_dot_, k_dot_, v_dot_;
  const Heads<T> o_dot_, r_;
  const at::TensorOptions options_;
};

Tensor packed(const Tensor& x) { return x.defined() ? x.contiguous() : x; }
Tape packed(const Tape& t) {
  return {packed(t.q), packed(t.k), packed(t.v), packed(t.o), packed(t.L), packed(t.o_bar), packed(t.Dl)};
}
Tangents packed(const Tangents& t) { return {packed(t.q), packed(t.k), packed(t.v), packed(t.o), packed(t.r)}; }

/// Contiguous inputs, and o and r of their sizes; returns K.
int64_t prepare_outputs(const AttentionShape& shape, const Tape& tape, Tangents& dot) {
  dot = packed(dot);
  const Tensor& any = dot.q.defined() ? dot.q : dot.k.defined() ? dot.k : dot.v;
  const int64_t directions = any.size(0), tokens = tape.q.size(0);
  dot.o = at::empty({directions, tokens, shape.heads * shape.width}, any.options());
  dot.r = dot.q.defined() || dot.k.defined() ? at::empty({directions, tokens, shape.heads}, any.options()) : Tensor();
  return directions;
}

}  // namespace

bool serves(const Tensor& x) { return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble); }

void forward(const AttentionShape& shape, Tape& tape) {
  tape.o = at::empty_like(tape.q, at::MemoryFormat::Contiguous);
  tape.L = at::empty({tape.q.size(0), shape.heads}, tape.q.options());
  AT_DISPATCH_FLOATING_TYPES(tape.q.scalar_type(), "attention", [&] {
    Sweep<scalar_t>(shape, packed(tape), {}).forward(Heads<scalar_t>(tape.o, shape.width), Heads<scalar_t>(tape.L, 1));
  });
}

Tensors adjoint(const AttentionShape& shape, Tape& tape) {
  tape.Dl = (tape.o_bar * tape.o).unflatten(1, {shape.heads, shape.width}).sum(-1);
  // With no tangents the adjoint_tangent of o_bar_dot = o_bar is the adjoint.
  Tensors bar = adjoint_tangent(shape, tape, {}, tape.o_bar.unsqueeze(0));
  for (Tensor& x : bar) x = x.squeeze(0);
  return bar;
}

void forward_tangent(const AttentionShape& shape, const Tape& tape, Tangents& dot) {
  const int64_t directions = prepare_outputs(shape, tape, dot);
  AT_DISPATCH_FLOATING_TYPES(dot.o.scalar_type(), "attention_tangent",
                             [&] { Sweep<scalar_t>(shape, packed(tape), dot).forward_tangent(directions); });
}

Tensors adjoint_tangent(const AttentionShape& shape, const Tape& tape, const Tangents& dot, const Tensor& o_bar_dot,
                        unsigned wanted) {
  const Tensor& any = o_bar_dot.defined() ? o_bar_dot : dot.o;
  if (!any.defined()) return {Tensor(), Tensor(), Tensor()};
  Tensors bar;
  AT_DISPATCH_FLOATING_TYPES(any.scalar_type(), "attention_adjoint_tangent", [&] {
    bar = Sweep<scalar_t>(shape, packed(tape), packed(dot)).adjoint_tangent(any.size(0), packed(o_bar_dot), wanted);
  });
  return bar;
}

Tensor tangent_and_form(const AttentionShape& shape, const Tape& tape, Tangents& dot) {
  const int64_t directions = prepare_outputs(shape, tape, dot);
  const Tensor form = at::zeros({shape.kv_heads, directions, directions}, at::kDouble);
  AT_DISPATCH_FLOATING_TYPES(dot.o.scalar_type(), "attention_form",
                             [&] { Sweep<scalar_t>(shape, packed(tape), dot).tangent_and_form(directions, form); });
  return form.sum(0);
}

int64_t scratch_bytes(const AttentionShape& shape, int64_t tokens, int64_t directions, int64_t element_size,
                      int threads) {
  const int64_t rows = block_rows(tokens, element_size), each = form_elements_per_direction(shape, tokens, rows);
  const int64_t chunk = std::clamp<int64_t>(kScratchBytes / (each * element_size), 1, directions);
  const int64_t pack = std::min(directions, kPack);
  const int64_t elements = 4 * rows * block_ld(tokens) + chunk * each + pack * (rows * shape.width + chunk);
  return threads * elements * element_size + (shape.kv_heads + 1) * directions * directions * 8;
}

int64_t primal_scratch_bytes(int64_t tokens, int64_t element_size, int threads) {
  return threads * 4 * block_rows(tokens, element_size) * block_ld(tokens) * element_size;
}

}  // namespace hesper::attention_cpu
