// The ops of the twin (twin.h): plain C++, templated on the scalar.
//
// Every op is a loop with its adjoint written by hand beside it; nothing is shared with the engine. With
// S = std::complex<double> and h = 1e-25, g(x + i h v) = g(x) + i h H v + O(h^2), so Im g / h is H v with no difference
// taken and no digit lost (h^2 = 1e-50 is far below one rounding). That needs analytic arithmetic: no abs, no conj,
// and comparisons (ReLU, the maximum in softmax) on real parts alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <numbers>
#include <stdexcept>
#include <string>
#include <vector>

namespace hesper::oracle {

template <class S>
using Weights = std::map<std::string, std::vector<S>>;  // Hugging Face name -> row-major values

inline double real_part(double x) { return x; }
inline double real_part(const std::complex<double>& x) { return x.real(); }
inline double error_function(double x) { return std::erf(x); }
// erf(x + i y) to first order in y: exact for the y of a complex step.
inline std::complex<double> error_function(const std::complex<double>& z) {
  return {std::erf(z.real()), 2.0 / std::sqrt(std::numbers::pi) * std::exp(-z.real() * z.real()) * z.imag()};
}

template <class S>
struct Node {  // (rows, columns), its adjoint beside it
  int64_t rows, columns;
  std::vector<S> value, bar;
  S* row(int64_t r) { return value.data() + r * columns; }
  S* bar_row(int64_t r) { return bar.data() + r * columns; }
};
template <class S>
using Var = std::shared_ptr<Node<S>>;

struct Attention {
  int64_t H, G;
  double scale;
  int64_t window = 0, chunk = 0;  // 0: none
  double cap = 0;                 // 0: none
  bool sees(int64_t query, int64_t key) const {
    return key <= query && (window == 0 || query - key < window) && (chunk == 0 || query / chunk == key / chunk);
  }
};

// Runs ops forward and remembers their adjoints; `backward` calls those in reverse order.
template <class S>
class Program {
 public:
  explicit Program(const Weights<S>& weights) {
    for (const auto& [name, value] : weights) {
      parameters_[name] =
          std::make_shared<Node<S>>(Node<S>{1, int64_t(value.size()), value, std::vector<S>(value.size())});
    }
  }

  Var<S> parameter(const std::string& name) const {
    auto found = parameters_.find(name);
    if (found == parameters_.end()) throw std::runtime_error("twin: no parameter " + name);
    return found->second;
  }
  bool has(const std::string& name) const { return parameters_.contains(name); }

  void backward() {
    for (auto adjoint = adjoints_.rbegin(); adjoint != adjoints_.rend(); ++adjoint) (*adjoint)();
    adjoints_.clear();
  }
  Weights<S> gradient() const {
    Weights<S> result;
    for (const auto& [name, node] : parameters_) result[name] = node->bar;
    return result;
  }

  // rows of `table` (words, width) at `ids` + offset
  Var<S> embedding(const std::string& table, int64_t width, const std::vector<int64_t>& ids, int64_t offset = 0) {
    auto w = parameter(table);
    auto y = make(int64_t(ids.size()), width);
    each(*y, [&](int64_t t, int64_t c) { y->row(t)[c] = w->value.at((ids[t] + offset) * width + c); });
    adjoints_.push_back(
        [=] { each(*y, [&](int64_t t, int64_t c) { w->bar[(ids[t] + offset) * width + c] += y->bar_row(t)[c]; }); });
    return y;
  }

  Var<S> add(Var<S> a, Var<S> b) {
    auto y = make(a->rows, a->columns);
    for (size_t i = 0; i < y->value.size(); ++i) y->value[i] = a->value[i] + b->value[i];
    adjoints_.push_back([=] {
      for (size_t i = 0; i < y->bar.size(); ++i) a->bar[i] += y->bar[i], b->bar[i] += y->bar[i];
    });
    return y;
  }

  Var<S> multiply(Var<S> a, Var<S> b) {
    auto y = make(a->rows, a->columns);
    for (size_t i = 0; i < y->value.size(); ++i) y->value[i] = a->value[i] * b->value[i];
    adjoints_.push_back([=] {
      for (size_t i = 0; i < y->bar.size(); ++i) {
        a->bar[i] += b->value[i] * y->bar[i];
        b->bar[i] += a->value[i] * y->bar[i];
      }
    });
    return y;
  }

  // y_t = a_t x_t; factors: one, or one a row
  Var<S> scale(Var<S> x, const std::vector<double>& factors) {
    auto y = make(x->rows, x->columns);
    auto factor = [factors](int64_t t) { return factors[factors.size() == 1 ? 0 : size_t(t)]; };
    each(*y, [&](int64_t t, int64_t c) { y->row(t)[c] = factor(t) * x->row(t)[c]; });
    adjoints_.push_back(
        [=] { each(*y, [&](int64_t t, int64_t c) { x->bar_row(t)[c] += factor(t) * y->bar_row(t)[c]; }); });
    return y;
  }

  // channels [begin, end) of every `width`
  Var<S> channels(Var<S> x, int64_t width, int64_t begin, int64_t end) {
    const int64_t n = end - begin;
    auto y = make(x->rows, x->columns / width * n);
    auto from = [=](int64_t c) { return c / n * width + begin + c % n; };
    each(*y, [&](int64_t t, int64_t c) { y->row(t)[c] = x->row(t)[from(c)]; });
    adjoints_.push_back([=] { each(*y, [&](int64_t t, int64_t c) { x->bar_row(t)[from(c)] += y->bar_row(t)[c]; }); });
    return y;
  }

  // y = cap tanh(x / cap)
  Var<S> softcap(Var<S> x, double cap) {
    auto y = make(x->rows, x->columns);
    for (size_t i = 0; i < y->value.size(); ++i) y->value[i] = cap * std::tanh(x->value[i] / cap);
    adjoints_.push_back([=] {
      for (size_t i = 0; i < y->bar.size(); ++i)
        x->bar[i] += (1.0 - y->value[i] * y->value[i] / (cap * cap)) * y->bar[i];
    });
    return y;
  }

  // The expert of each token's slot-th largest logit, a gated SiLU MLP of hidden width F that sees s h, s its sigmoid
  Var<S> expert(Var<S> h, Var<S> logits, const std::string& prefix, int64_t slot) {
    const int64_t C = h->columns;
    auto y = make(h->rows, C);
    for (int64_t t = 0; t < h->rows; ++t) {
      std::vector<int64_t> order(logits->columns);
      for (int64_t e = 0; e < logits->columns; ++e) order[e] = e;
      std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
        return real_part(logits->row(t)[a]) > real_part(logits->row(t)[b]);
      });
      const int64_t e = order[slot];
      const std::string root = prefix + std::to_string(e) + ".";
      auto gate = parameter(root + "gate_proj.weight"), up = parameter(root + "up_proj.weight"),
           down = parameter(root + "down_proj.weight");
      const int64_t F = gate->columns / C;
      const S s = 1.0 / (1.0 + std::exp(-logits->row(t)[e]));
      std::vector<S> g(F), u(F), a(F);
      for (int64_t f = 0; f < F; ++f) {
        for (int64_t c = 0; c < C; ++c) {
          g[f] += gate->value[f * C + c] * s * h->row(t)[c];
          u[f] += up->value[f * C + c] * s * h->row(t)[c];
        }
        a[f] = g[f] / (1.0 + std::exp(-g[f])) * u[f];
        for (int64_t c = 0; c < C; ++c) y->row(t)[c] += down->value[c * F + f] * a[f];
      }
      adjoints_.push_back([=] {
        std::vector<S> x_bar(C);
        for (int64_t f = 0; f < F; ++f) {
          const S sigmoid = 1.0 / (1.0 + std::exp(-g[f]));
          S a_bar = 0;
          for (int64_t c = 0; c < C; ++c) {
            a_bar += down->value[c * F + f] * y->bar_row(t)[c];
            down->bar[c * F + f] += a[f] * y->bar_row(t)[c];
          }
          const S g_bar = a_bar * u[f] * sigmoid * (1.0 + g[f] * (1.0 - sigmoid)), u_bar = a_bar * g[f] * sigmoid;
          for (int64_t c = 0; c < C; ++c) {
            gate->bar[f * C + c] += g_bar * s * h->row(t)[c];
            up->bar[f * C + c] += u_bar * s * h->row(t)[c];
            x_bar[c] += gate->value[f * C + c] * g_bar + up->value[f * C + c] * u_bar;
          }
        }
        for (int64_t c = 0; c < C; ++c) {
          h->bar_row(t)[c] += s * x_bar[c];
          logits->bar_row(t)[e] += s * (1.0 - s) * h->row(t)[c] * x_bar[c];
        }
      });
    }
    return y;
  }

  // y = x W^T (+ b when the checkpoint has prefix.bias); W (out, in) is `weight`, turned: W^T
  Var<S> linear(Var<S> x, const std::string& prefix, bool turned = false) {
    auto w = parameter(prefix + ".weight");
    const int64_t in = x->columns, out = w->columns / in;
    auto at = [=](int64_t o, int64_t i) { return turned ? i * out + o : o * in + i; };
    auto b = has(prefix + ".bias") ? parameter(prefix + ".bias") : nullptr;
    auto y = make(x->rows, out);
    each(*y, [&](int64_t t, int64_t o) {
      S sum = b ? b->value[o] : S(0);
      for (int64_t i = 0; i < in; ++i) sum += x->row(t)[i] * w->value[at(o, i)];
      y->row(t)[o] = sum;
    });
    adjoints_.push_back([=] {
      each(*y, [&](int64_t t, int64_t o) {
        const S up = y->bar_row(t)[o];
        for (int64_t i = 0; i < in; ++i) {
          x->bar_row(t)[i] += up * w->value[at(o, i)];
          w->bar[at(o, i)] += up * x->row(t)[i];
        }
        if (b) b->bar[o] += up;
      });
    });
    return y;
  }

  // layer norm (centred) or RMS norm: xh = (x - mean)/s, y = g xh + b; g and b where the checkpoint has them. Of
  // `heads` runs of channels each; g = offset + what is stored
  Var<S> norm(Var<S> x, const std::string& prefix, double eps, bool centred, int64_t heads = 1, double offset = 0) {
    const int64_t C = x->columns / heads, rows = x->rows * heads;
    auto at = [C](Node<S>& n, int64_t t) { return n.value.data() + t * C; };
    auto bar_at = [C](Node<S>& n, int64_t t) { return n.bar.data() + t * C; };
    auto g = has(prefix + ".weight") ? parameter(prefix + ".weight") : nullptr;
    auto b = has(prefix + ".bias") ? parameter(prefix + ".bias") : nullptr;
    auto gain = [g, offset](int64_t c) { return g ? offset + g->value[c] : S(1); };
    auto y = make(x->rows, x->columns);
    auto xh = make(x->rows, x->columns);
    auto s = make(rows, 1);
    for (int64_t t = 0; t < rows; ++t) {
      S mean = 0, square = 0;
      for (int64_t c = 0; c < C && centred; ++c) mean += at(*x, t)[c] / double(C);
      for (int64_t c = 0; c < C; ++c) square += (at(*x, t)[c] - mean) * (at(*x, t)[c] - mean) / double(C);
      s->value[t] = std::sqrt(square + eps);
      for (int64_t c = 0; c < C; ++c) {
        at(*xh, t)[c] = (at(*x, t)[c] - mean) / s->value[t];
        at(*y, t)[c] = at(*xh, t)[c] * gain(c) + (b ? b->value[c] : S(0));
      }
    }
    adjoints_.push_back([=] {
      for (int64_t t = 0; t < rows; ++t) {
        S mean_u = 0, mean_xh_u = 0;
        for (int64_t c = 0; c < C; ++c) {
          const S u = gain(c) * bar_at(*y, t)[c];
          if (centred) mean_u += u / double(C);
          mean_xh_u += at(*xh, t)[c] * u / double(C);
          if (g) g->bar[c] += at(*xh, t)[c] * bar_at(*y, t)[c];
          if (b) b->bar[c] += bar_at(*y, t)[c];
        }
        for (int64_t c = 0; c < C; ++c) {
          const S u = gain(c) * bar_at(*y, t)[c];
          bar_at(*x, t)[c] += (u - mean_u - at(*xh, t)[c] * mean_xh_u) / s->value[t];
        }
      }
    });
    return y;
  }

  Var<S> activation(Var<S> x, const std::string& kind) {
    auto y = make(x->rows, x->columns);
    std::vector<S> slope(x->value.size());
    for (size_t i = 0; i < x->value.size(); ++i) {
      const S v = x->value[i];
      if (kind == "relu") {
        slope[i] = real_part(v) > 0 ? 1.0 : 0.0;
        y->value[i] = slope[i] * v;
      } else if (kind == "silu") {
        const S sigmoid = 1.0 / (1.0 + std::exp(-v));
        slope[i] = sigmoid * (1.0 + v * (1.0 - sigmoid));
        y->value[i] = v * sigmoid;
      } else if (kind == "gelu") {
        const S cdf = 0.5 * (1.0 + error_function(v / std::numbers::sqrt2));
        slope[i] = cdf + v * std::exp(-0.5 * v * v) / std::sqrt(2.0 * std::numbers::pi);
        y->value[i] = v * cdf;
      } else if (kind == "gelu_new" || kind == "gelu_pytorch_tanh") {
        const double a = std::sqrt(2.0 / std::numbers::pi), b = 0.044715;
        const S th = std::tanh(a * (v + b * v * v * v));
        slope[i] = 0.5 * (1.0 + th) + 0.5 * v * (1.0 - th * th) * a * (1.0 + 3.0 * b * v * v);
        y->value[i] = 0.5 * v * (1.0 + th);
      } else {
        throw std::runtime_error("twin: activation " + kind);
      }
    }
    adjoints_.push_back([=] {
      for (size_t i = 0; i < slope.size(); ++i) x->bar[i] += slope[i] * y->bar[i];
    });
    return y;
  }

  // rotary embedding of every head of width D at positions 0, 1, ...: channels (f, f + half) or (2f, 2f + 1); those
  // beyond 2 half stay, the others are multiplied by `factor`
  Var<S> rotary(Var<S> x, const std::vector<double>& frequencies, int64_t D, bool neighbours = false,
                double factor = 1) {
    const int64_t half = int64_t(frequencies.size());
    auto y = make(x->rows, x->columns);
    auto turn = [half, frequencies, D, neighbours, factor](Node<S>& n, auto&& map) {
      for (int64_t t = 0; t < n.rows; ++t) {
        for (int64_t c = 0; c < n.columns; c += D) {
          for (int64_t f = 0; f < half; ++f) {
            const int64_t first = c + (neighbours ? 2 * f : f);
            map(t, first, first + (neighbours ? 1 : half), factor * std::cos(double(t) * frequencies[f]),
                factor * std::sin(double(t) * frequencies[f]));
          }
        }
      }
    };
    auto stays = [D, half](int64_t c) { return c % D >= 2 * half; };
    each(*y, [&](int64_t t, int64_t c) {
      if (stays(c)) y->row(t)[c] = x->row(t)[c];
    });
    turn(*x, [&](int64_t t, int64_t i, int64_t j, double cosine, double sine) {
      y->row(t)[i] = x->row(t)[i] * cosine - x->row(t)[j] * sine;
      y->row(t)[j] = x->row(t)[j] * cosine + x->row(t)[i] * sine;
    });
    adjoints_.push_back([=] {
      turn(*x, [&](int64_t t, int64_t i, int64_t j, double cosine, double sine) {
        x->bar_row(t)[i] += y->bar_row(t)[i] * cosine + y->bar_row(t)[j] * sine;
        x->bar_row(t)[j] += y->bar_row(t)[j] * cosine - y->bar_row(t)[i] * sine;
      });
      each(*y, [&](int64_t t, int64_t c) {
        if (stays(c)) x->bar_row(t)[c] += y->bar_row(t)[c];
      });
    });
    return y;
  }

  // causal attention; q (T, H D), k and v (T, G D) -> (T, H D)
  Var<S> attention(Var<S> q, Var<S> k, Var<S> v, Attention shape) {
    const int64_t T = q->rows, H = shape.H, G = shape.G, D = q->columns / H;
    auto y = make(T, q->columns);
    auto P = make(H * T, T), slope = make(H * T, T);  // dS/dU of S = cap tanh(U / cap)
    for (int64_t h = 0; h < H; ++h) {
      const int64_t at = h * D, from = h / (H / G) * D;
      for (int64_t t = 0; t < T; ++t) {
        std::vector<int64_t> keys;
        std::vector<S> p;
        for (int64_t u = 0; u <= t; ++u) {
          if (!shape.sees(t, u)) continue;
          S score = 0;
          for (int64_t d = 0; d < D; ++d) score += shape.scale * q->row(t)[at + d] * k->row(u)[from + d];
          slope->row(h * T + t)[u] = 1.0;
          if (shape.cap > 0) {
            const S th = std::tanh(score / shape.cap);
            slope->row(h * T + t)[u] = 1.0 - th * th;
            score = shape.cap * th;
          }
          keys.push_back(u);
          p.push_back(score);
        }
        softmax(p.data(), int64_t(p.size()));
        for (size_t i = 0; i < keys.size(); ++i) {
          P->row(h * T + t)[keys[i]] = p[i];
          for (int64_t d = 0; d < D; ++d) y->row(t)[at + d] += p[i] * v->row(keys[i])[from + d];
        }
      }
    }
    adjoints_.push_back([=] {
      std::vector<S> p_bar(T);
      for (int64_t h = 0; h < H; ++h) {
        const int64_t at = h * D, from = h / (H / G) * D;
        for (int64_t t = 0; t < T; ++t) {
          const S* p = P->row(h * T + t);
          S delta = 0;
          for (int64_t u = 0; u <= t; ++u) {
            p_bar[u] = 0;
            for (int64_t d = 0; d < D; ++d) {
              p_bar[u] += y->bar_row(t)[at + d] * v->row(u)[from + d];
              v->bar_row(u)[from + d] += p[u] * y->bar_row(t)[at + d];
            }
            delta += p[u] * p_bar[u];
          }
          for (int64_t u = 0; u <= t; ++u) {
            const S score_bar = p[u] * (p_bar[u] - delta) * shape.scale * slope->row(h * T + t)[u];
            for (int64_t d = 0; d < D; ++d) {
              q->bar_row(t)[at + d] += score_bar * k->row(u)[from + d];
              k->bar_row(u)[from + d] += score_bar * q->row(t)[at + d];
            }
          }
        }
      }
    });
    return y;
  }

  // mean over the counted tokens of -log softmax(z[t - 1])[labels[t]]; its adjoint is seeded with `weight`
  S cross_entropy(Var<S> z, const std::vector<int64_t>& labels, double weight) {
    int64_t counted = 0;
    for (int64_t t = 1; t < z->rows; ++t) counted += labels[t] >= 0;
    S loss = 0;
    for (int64_t t = 1; t < z->rows; ++t) {
      if (labels[t] < 0) continue;
      std::vector<S> p(z->row(t - 1), z->row(t - 1) + z->columns);
      loss += (softmax(p.data(), z->columns) - z->row(t - 1)[labels[t]]) / double(counted);
      p[labels[t]] -= 1.0;
      for (int64_t w = 0; w < z->columns; ++w) z->bar_row(t - 1)[w] += weight / double(counted) * p[w];
    }
    return loss;
  }

 private:
  static Var<S> make(int64_t rows, int64_t columns) {
    return std::make_shared<Node<S>>(
        Node<S>{rows, columns, std::vector<S>(rows * columns), std::vector<S>(rows * columns)});
  }
  template <class F>
  static void each(const Node<S>& n, F&& f) {
    for (int64_t r = 0; r < n.rows; ++r) {
      for (int64_t c = 0; c < n.columns; ++c) f(r, c);
    }
  }
  // in place; returns the log of the sum of exponentials
  static S softmax(S* x, int64_t n) {
    double top = real_part(x[0]);
    for (int64_t i = 1; i < n; ++i) top = std::max(top, real_part(x[i]));
    S sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += x[i] = std::exp(x[i] - top);
    for (int64_t i = 0; i < n; ++i) x[i] /= sum;
    return top + std::log(sum);
  }

  std::map<std::string, Var<S>> parameters_;
  std::vector<std::function<void()>> adjoints_;
};

}  // namespace hesper::oracle
