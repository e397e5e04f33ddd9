// Checks each version of the fused attention against fp64 on fresh random data, then times it.
//   laboratory [check] [time] [sanitize] [profile]: the last two run little, for compute-sanitizer and ncu
#include <cmath>
#include <cstring>
#include <exception>
#include <string>

#include "reference.cuh"
#include "versions.h"

using lab::Array;
using lab::Problem;

namespace {

/// Inputs of a problem, a tape rounded from fp64, outputs.
struct Bench {
  Problem p;
  Array<float> q, k, v, o, L, o_bar, Dl, q_dot, k_dot, v_dot, o_bar_dot;
  Array<float> o_dot, r, q_bar, k_bar, v_bar;
  Array<char> workspace;

  Bench(const Problem& problem, uint64_t seed) : p(problem) {
    const int64_t n = int64_t(p.tokens) * p.q_row(), m = int64_t(p.tokens) * p.kv_row(), K = p.directions;
    for (auto* x : {&q, &o, &o_bar}) x->resize(n);
    for (auto* x : {&k, &v}) x->resize(m);
    for (auto* x : {&L, &Dl}) x->resize(int64_t(p.tokens) * p.heads);
    for (auto* x : {&q_dot, &o_bar_dot, &o_dot, &q_bar}) x->resize(K * n);
    for (auto* x : {&k_dot, &v_dot, &k_bar, &v_bar}) x->resize(K * m);
    r.resize(K * p.tokens * p.heads);
    // Scores with a deviation of 3: rows with a few large probabilities.
    fill_normal(q, ++seed, std::sqrt(3.f)), fill_normal(k, ++seed, std::sqrt(3.f));
    for (auto* x : {&v, &o_bar, &q_dot, &k_dot, &v_dot, &o_bar_dot}) fill_normal(*x, ++seed);
  }
  template <class Shape>
  Shape shape() const {
    return {p.tokens, p.heads, p.kv_heads, p.width, float(p.scale())};
  }
  void tape_from(const lab::Reference& ref) { lower(ref.o, o), lower(ref.L, L), lower(ref.Dl, Dl); }
  static void lower(const Array<double>& from, Array<float>& to) {
    const double* const x = from.data;
    float* const y = to.data;
    lab::each(from.size, [=] __device__(int64_t i) { y[i] = float(x[i]); });
  }
  void poison() {
    for (auto* x : {&o_dot, &r, &q_bar, &k_bar, &v_bar}) x->poison();
    workspace.poison();
  }
};

template <class V>
typename V::Tape tape_of(const Bench& b) {
  return {b.q.data, b.k.data, b.v.data, b.o.data, b.L.data, b.o_bar.data, b.Dl.data};
}
template <class V>
typename V::Tangents tangents_of(const Bench& b) {
  return {b.p.q_dot ? b.q_dot.data : nullptr, b.p.k_dot ? b.k_dot.data : nullptr, b.p.v_dot ? b.v_dot.data : nullptr};
}

template <class V>
void run_forward(Bench& b, typename V::Products products) {
  V::forward_tangent(b.shape<typename V::Shape>(), tape_of<V>(b), tangents_of<V>(b), b.p.directions, products,
                     b.o_dot.data, b.r.data, b.workspace.data);
}
template <class V>
void run_adjoint(Bench& b, typename V::Products products) {
  V::adjoint_tangent(b.shape<typename V::Shape>(), tape_of<V>(b), tangents_of<V>(b), b.o_dot.data, b.r.data,
                     b.p.o_bar_dot ? b.o_bar_dot.data : nullptr, b.p.directions, products,
                     {b.q_bar.data, b.k_bar.data, b.v_bar.data}, b.workspace.data);
}
template <class V>
void run_form(Bench& b, typename V::Products products) {
  V::tangent_and_form(b.shape<typename V::Shape>(), tape_of<V>(b), tangents_of<V>(b), b.p.directions, products,
                      b.o_dot.data, b.r.data, {b.q_bar.data, b.k_bar.data, b.v_bar.data}, b.workspace.data);
}

int failures = 0;

/// Prints the errors of one direction's results; more than `most` is a failure.
void report(const char* what, double most, std::initializer_list<double> errors) {
  std::printf("  %-9s", what);
  bool good = true;
  for (const double e : errors) std::printf(" %.1e", e), good = good && e <= most;
  std::printf("%s\n", good ? "" : "  FAILED");
  failures += !good;
}

template <class V>
void check_version(const Problem& p, uint64_t seed, bool tangents) {
  Bench b(p, seed);
  b.workspace.resize(int64_t(V::workspace_bytes(b.shape<typename V::Shape>(), p.directions)));
  lab::Reference ref(p, b.q.data, b.k.data, b.v.data, b.o_bar.data);
  b.tape_from(ref);
  std::printf("%s T %d H %d G %d D %d K %d%s%s%s%s\n", V::name(), p.tokens, p.heads, p.kv_heads, p.width, p.directions,
              p.q_dot ? " q" : "", p.k_dot ? " k" : "", p.v_dot ? " v" : "", p.o_bar_dot ? " o" : "");
  const int64_t n = b.q.size, m = b.k.size, rows = b.L.size;
  for (const auto products : {V::Products::bf16x3, V::Products::bf16}) {
    // bf16x3 leaves 2^-16 of each factor, bf16 2^-9.
    const bool three = products == V::Products::bf16x3;
    const double most = three ? 1e-4 : 2e-2;
    for (int form = 0; form < 2; ++form) {
      if (form && !tangents) continue;
      b.poison();
      if (form) {
        run_form<V>(b, products);
      } else {
        if (tangents) run_forward<V>(b, products);
        run_adjoint<V>(b, products);
      }
      lab::check(cudaDeviceSynchronize());
      for (const int i : {0, p.directions - 1}) {
        ref.direction(p.q_dot ? b.q_dot.data + i * n : nullptr, p.k_dot ? b.k_dot.data + i * m : nullptr,
                      p.v_dot ? b.v_dot.data + i * m : nullptr, p.o_bar_dot ? b.o_bar_dot.data + i * n : nullptr);
        const double eo = tangents ? error_of(b.o_dot.data + i * n, ref.o_dot) : 0;
        const double er = tangents ? error_of(b.r.data + i * rows, ref.r) : 0;
        report(three  ? form ? "bf16x3 f" : "bf16x3"
               : form ? "bf16 f"
                      : "bf16",
               most,
               {eo, er, error_of(b.q_bar.data + i * n, form ? ref.q_prime : ref.q_bar),
                error_of(b.k_bar.data + i * m, form ? ref.k_prime : ref.k_bar),
                error_of(b.v_bar.data + i * m, form ? ref.v_prime : ref.v_bar)});
      }
    }
  }
}

template <class V>
void check_all(uint64_t seed) {
  check_version<V>({64, 1, 1, 64, 1}, seed + 1, true);
  check_version<V>({1, 1, 1, 64, 1}, seed + 2, true);
  check_version<V>({333, 4, 2, 64, 3}, seed + 3, true);
  check_version<V>({333, 4, 2, 80, 2}, seed + 4, true);
  check_version<V>({200, 2, 1, 96, 2}, seed + 5, true);
  check_version<V>({333, 4, 1, 128, 3}, seed + 6, true);
  check_version<V>({77, 3, 3, 16, 2}, seed + 7, true);
  check_version<V>({130, 2, 2, 50, 2}, seed + 8, true);
  check_version<V>({257, 2, 1, 64, 2, true, false, false, true}, seed + 9, true);
  check_version<V>({257, 2, 1, 64, 2, false, true, true, false}, seed + 10, true);
  check_version<V>({257, 2, 1, 64, 2, false, false, true, true}, seed + 11, true);
  check_version<V>({257, 4, 2, 64, 3, false, false, false, true}, seed + 12, false);
  check_version<V>({257, 4, 2, 128, 3, false, false, false, true}, seed + 13, false);
  check_version<V>({1024, 12, 12, 64, 4}, seed + 14, true);
}

/// Causal flops of one tile product in bf16x3 over 800 TFLOP/s, the rate of a large bf16 product on random data.
double bound_ms(const Problem& p, double tiles) { return 3 * tiles * p.tokens * double(p.tokens) * p.q_row() / 800e9; }

template <class V>
void time_version(const char* name, const Problem& p, int layers) {
  Bench b(p, 99);
  b.workspace.resize(int64_t(V::workspace_bytes(b.shape<typename V::Shape>(), p.directions)));
  lab::Reference ref(p, b.q.data, b.k.data, b.v.data, b.o_bar.data);
  b.tape_from(ref);
  for (const auto products : {V::Products::bf16x3, V::Products::bf16}) {
    const bool three = products == V::Products::bf16x3;
    const float forward = lab::median_ms(9, [&] { run_forward<V>(b, products); }) / p.directions;
    const float adjoint = lab::median_ms(9, [&] { run_adjoint<V>(b, products); }) / p.directions;
    const float form = lab::median_ms(9, [&] { run_form<V>(b, products); }) / p.directions;
    std::printf(
        "%s %s K %d %s: forward_tangent %.4f adjoint_tangent %.4f form %.4f ms; %d layers: two-pass %.2f Gram %.2f ms",
        V::name(), name, p.directions, three ? "bf16x3" : "bf16", forward, adjoint, form, layers,
        layers * (forward + adjoint), layers * form);
    if (three)
      std::printf("; of the bound of 14 tiles %.0f%% (4: %.0f%%, 10: %.0f%%), Gram of 8 %.0f%%",
                  100 * bound_ms(p, 14) / (forward + adjoint), 100 * bound_ms(p, 4) / forward,
                  100 * bound_ms(p, 10) / adjoint, 100 * bound_ms(p, 8) / form);
    std::printf("\n");
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  const auto asked = [&](const char* what) {
    for (int i = 1; i < argc; ++i)
      if (std::strcmp(argv[i], what) == 0) return true;
    return argc == 1 && (std::strcmp(what, "check") == 0 || std::strcmp(what, "time") == 0);
  };
  cudaDeviceProp device;
  lab::check(cudaGetDeviceProperties(&device, 0));
  std::printf("%s, %d multiprocessors\n", device.name, device.multiProcessorCount);
  if (asked("sanitize")) {
    check_version<Current>({130, 4, 2, 64, 3}, 7, true);
    check_version<Current>({70, 2, 1, 128, 2}, 8, true);
    check_version<Current>({70, 2, 1, 80, 1, false, false, false, true}, 9, false);
  }
  if (asked("profile")) {
    Bench b({2048, 12, 12, 64, 8}, 99);
    b.workspace.resize(int64_t(Current::workspace_bytes(b.shape<Current::Shape>(), b.p.directions)));
    lab::Reference ref(b.p, b.q.data, b.k.data, b.v.data, b.o_bar.data);
    b.tape_from(ref);
    run_forward<Current>(b, Current::Products::bf16x3);
    run_adjoint<Current>(b, Current::Products::bf16x3);
    run_form<Current>(b, Current::Products::bf16x3);
    lab::check(cudaDeviceSynchronize());
  }
  if (asked("check")) each_version([](auto v) { check_all<decltype(v)>(1000); });
  if (asked("time"))
    each_version([](auto v) {
      using V = decltype(v);
      time_version<V>("OPT-125M", {2048, 12, 12, 64, 8}, 12);
      time_version<V>("OPT-125M", {2048, 12, 12, 64, 32}, 12);
      time_version<V>("Llama-3.2-1B", {2048, 32, 8, 64, 8}, 16);
    });
  std::printf("%d failures\n", failures);
  return failures != 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  std::_Exit(1);
}
