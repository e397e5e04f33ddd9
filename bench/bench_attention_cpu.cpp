// Attention's tangent maps on one CPU thread beside (a) their matrix products alone, at the same tile shapes, and (b)
// the composed maps. Times are the thread's CPU time, so that a busy machine disturbs them little.
//   bench_attention_cpu [heads kv_heads width tokens directions]
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <time.h>

#include <cmath>
#include <cstdlib>
#include <functional>

#include "ops/attention_blocks.h"
#include "ops/attention_cpu.h"
#include "ops/blas.h"

namespace {
using namespace hesper;
using blas::flip;
using blas::gemm;
using Matrix = blas::Matrix<float>;

struct Case {
  AttentionShape shape;
  int64_t tokens, directions;
};

double cpu_seconds(const std::function<void()>& f) {
  double best = 1e30;
  for (int i = 0; i < 3; ++i) {
    timespec a, b;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    f();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    best = std::min(best, static_cast<double>(b.tv_sec - a.tv_sec) + 1e-9 * static_cast<double>(b.tv_nsec - a.tv_nsec));
  }
  return best;
}

/// `inner` products (rows, D) x (D, keys), `outer` (rows, keys) x (keys, D) and `flipped` (keys, rows) x (rows, D) for
/// every head, block of rows and direction.
void products(const Case& c, int inner, int outer, int flipped) {
  const auto& [s, tokens, directions] = c;
  const int64_t block = tokens <= 1024 ? 64 : 32, ld = tokens + 16, d = s.width, q = s.heads * d;
  const Tensor wide = at::ones({tokens, q}), tile = at::zeros({block, ld}), sum = at::zeros({tokens, d});
  const float* w = wide.data_ptr<float>();
  for (int64_t h = 0; h < s.heads; ++h)
    for (int64_t begin = 0; begin < tokens; begin += block)
      for (int64_t j = 0; j < directions; ++j) {
        const int64_t rows = std::min(block, tokens - begin), keys = begin + rows;
        const Matrix x{tile.data_ptr<float>(), rows, keys, ld}, all{w + h * d, keys, d, q}, few{w + h * d, rows, d, q};
        for (int i = 0; i < inner; ++i) gemm(1.0f, few, flip(all), 0.0f, tile.data_ptr<float>(), ld);
        for (int i = 0; i < outer; ++i) gemm(1.0f, x, all, 0.0f, sum.data_ptr<float>(), d);
        for (int i = 0; i < flipped; ++i) gemm(1.0f, flip(x), few, 0.0f, sum.data_ptr<float>(), d);
      }
}

void compare(const Case& c) {
  const AttentionShape& s = c.shape;
  const int64_t q = s.heads * s.width, kv = s.kv_heads * s.width, repeat = s.heads / s.kv_heads;
  namespace blocks = attention_blocks;
  namespace cpu = attention_cpu;
  const auto heads = [&](const Tensor& x, int64_t n) { return blocks::split_heads(x, n, n == s.heads ? 1 : repeat); };
  const auto flat = [](const Tensor& x) { return x[0].transpose(0, 1).contiguous(); };

  const Tensor x = at::randn({1, c.tokens, q}), y = at::randn({1, c.tokens, kv}), z = at::randn({1, c.tokens, kv});
  const Tensor o_bar = at::randn({1, c.tokens, q});
  blocks::HeadsTape h{heads(x, s.heads), heads(y, s.kv_heads), heads(z, s.kv_heads), {}, heads(o_bar, s.heads), {}, {}};
  blocks::forward(h, s);
  blocks::adjoint(h, s);
  const cpu::Tape tape{x[0], y[0], z[0], flat(h.o).flatten(1), flat(h.L), o_bar[0], flat(h.Dl)};
  const auto random = [&](int64_t n) { return at::randn({c.directions, c.tokens, n}); };
  const cpu::Tangents moves{random(q), random(kv), random(kv), {}, {}};
  const Tensor o_bar_dot = random(q);

  cpu::Tangents dot = moves;
  cpu::forward_tangent(s, tape, dot);
  const auto composed_tangent = [&] {
    blocks::HeadsTangents d{heads(moves.q, s.heads), heads(moves.k, s.kv_heads), heads(moves.v, s.kv_heads), {}, {}};
    blocks::forward_tangent(h, d, s);
    return d;
  };
  const auto form_of = [&](const Tensor& a, const Tensor& b) { return at::matmul(a.flatten(1), b.flatten(1).t()); };
  struct Row {
    const char* name;
    double products, fused, composed;
    int count;
  };
  const Row rows[] = {{"forward_tangent", cpu_seconds([&] { products(c, 2, 2, 0); }), cpu_seconds([&] {
                         cpu::Tangents d = moves;
                         cpu::forward_tangent(s, tape, d);
                       }),
                       cpu_seconds([&] { blocks::join_heads(composed_tangent().o, s.heads); }), 4},
                      {"adjoint_tangent", cpu_seconds([&] { products(c, 4, 2, 4); }),
                       cpu_seconds([&] { cpu::adjoint_tangent(s, tape, dot, o_bar_dot); }), cpu_seconds([&] {
                         const blocks::HeadsTangents d{heads(dot.q, s.heads), heads(dot.k, s.kv_heads),
                                                       heads(dot.v, s.kv_heads), heads(dot.o, s.heads),
                                                       dot.r.transpose(1, 2)};
                         const Tensors bar = blocks::adjoint_tangent(h, d, heads(o_bar_dot, s.heads), s);
                         for (int i = 0; i < 3; ++i) blocks::join_heads(bar[i], i == 0 ? s.heads : s.kv_heads);
                       }),
                       10},
                      {"tangent_and_form", cpu_seconds([&] { products(c, 2, 4, 2); }), cpu_seconds([&] {
                         cpu::Tangents d = moves;
                         cpu::tangent_and_form(s, tape, d);
                       }),
                       cpu_seconds([&] {
                         const blocks::HeadsTangents d = composed_tangent();
                         const Tensors prime = blocks::second_order(h, d, s);
                         form_of(d.q, prime[0]) + form_of(d.k, prime[1]) + form_of(d.v, prime[2]);
                         blocks::join_heads(d.o, s.heads);
                       }),
                       8}};
  fmt::print("H {} G {} D {} T {} K {}, fp32, one thread, CPU milliseconds\n", s.heads, s.kv_heads, s.width, c.tokens,
             c.directions);
  fmt::print("{:<18}{:>10}{:>10}{:>10}{:>16}{:>16}{:>14}\n", "map", "products", "fused", "composed", "fused/products",
             "composed/fused", "GFLOP/s");
  for (const Row& r : rows) {
    const double pairs = 0.5 * static_cast<double>(c.tokens) * static_cast<double>(c.tokens + 1);  // causal
    const double flops = 2.0 * r.count * pairs * static_cast<double>(q * c.directions);
    fmt::print("{:<18}{:>10.1f}{:>10.1f}{:>10.1f}{:>16.2f}{:>16.2f}{:>14.1f}\n", r.name, r.products * 1e3,
               r.fused * 1e3, r.composed * 1e3, r.fused / r.products, r.composed / r.fused, flops / r.fused * 1e-9);
  }
}

}  // namespace

int main(int argc, char** argv) {
  at::set_num_threads(1);
  const at::NoGradGuard no_grad;
  std::vector<int64_t> n{9, 3, 64, 512, 16};
  if (argc == 6)
    for (int i = 0; i < 5; ++i) n[i] = std::atoll(argv[i + 1]);
  if (argc != 1 && argc != 6) {
    fmt::print(stderr, "usage: bench_attention_cpu [heads kv_heads width tokens directions]\n");
    return 2;
  }
  compare({{n[0], n[1], n[2], 1 / std::sqrt(static_cast<double>(n[2]))}, n[3], n[4]});
}
