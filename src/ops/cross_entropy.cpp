#include "ops/cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "ops/adjoint_start.h"
#include "ops/directions.h"
#include "ops/fused.h"
#include "ops/parameters.h"
#include "ops/product.h"
#include "ops/second_order.h"
#include "ops/tier_products.h"

namespace hesper {
namespace {
enum Tape { kX, kUp, kLse };  // (rows, C), U^T p or U^T (z' p) (rows, C), logsumexp (rows, 1)

// Logits of the primal pass at a time: 32 MiB in fp64 on a CPU, 512 MiB on a GPU, whose products must be large.
int64_t primal_tile(at::Device device) { return int64_t{1} << (device.is_cpu() ? 22 : 26); }
// Logits tangents of all K directions at a time: 2 MiB in fp32 on a CPU, 512 MiB on a GPU.
int64_t tangent_tile(at::Device device) { return int64_t{1} << (device.is_cpu() ? 19 : 27); }

/// Words at a time for so many rows (directions x tokens): all, or a multiple of 128.
int64_t word_step(int64_t rows, int64_t words, bool whole, at::Device device) {
  return whole ? words : std::min(words, std::max<int64_t>(tangent_tile(device) / rows / 128, 1) * 128);
}

/// Some tokens of a tangent pass as tokens of their own.
struct CountedTokens {
  Tensor index;  // (m) int64
  Tokens tokens;
  Kept tape;

  CountedTokens(const Tangent& t, const Tensor& rows)
      : index(rows),
        tokens{1,
               rows.numel(),
               0,
               t.tokens.ids.index_select(0, rows),
               t.tokens.targets.index_select(0, rows),
               t.tokens.weights.index_select(0, rows)} {
    for (const Tensor& kept : t.tape) tape.push_back(kept.index_select(0, rows));
  }
  Tangent tangent(const Tangent& t) const { return {tokens, t.parameters, t.directions, tape, t.alive}; }
  Tensor rows_of(const Tensor& x_dot) const { return x_dot.defined() ? x_dot.index_select(1, index) : x_dot; }
};
// What the fused products take: f(U's rows, x_dot's left factor, p w of these words or its root, p.z_dot) for each tile
// of words.
template <class F>
void for_tiles(const Tangent& t, int table, const Tensor& x_dot, bool root, F f) {
  const Tensor U = t.parameters.factor(table);
  const Tensor &x = t.tape[kX], shift = t.tape[kLse] - t.tokens.weights.to(x.scalar_type()).log().unsqueeze(1);
  const int64_t words = U.size(0), step = word_step(t.alive * x.size(0), words, false, x.device());
  const Tensor left = left_factor(x_dot, t.parameters.products()), mean = (x_dot * t.tape[kUp]).sum(-1, true);
  for (int64_t v = 0; v < words; v += step) {
    const Tensor u = U.narrow(0, v, std::min(step, words - v));
    Tensor p = product(x, u.to(x.scalar_type()).t()).sub_(shift);  // log(w p)
    if (root) p.mul_(0.5);
    f(u, left, p.exp_(), mean);
  }
}
}  // namespace

int64_t primal_logits_tile(int64_t rows, int64_t words, at::Device device) {
  return std::min(rows, std::max<int64_t>(1, primal_tile(device) / words)) * words;
}
int64_t tangent_logits_tile(int64_t rows, int64_t words, bool whole, at::Device device) {
  return rows * word_step(rows, words, whole, device);
}

CrossEntropyHead::Logits CrossEntropyHead::logits_of(const Tensor& y) const {
  if (softcap == 0) return {y, {}, {}};
  const Tensor th = (y / softcap).tanh(), first = 1 - th.square();
  return {th * softcap, first, th * first * (-2 / softcap)};
}

Tensor CrossEntropyHead::logits(const Parameters& parameters, const Tensor& x) const {
  return logits_of(x.mm(parameters.get(table, x.scalar_type()).t())).z;
}

Tensor CrossEntropyHead::rows_of_words(const Tensor& words, const Tensor& x, const Tensor& U) const {
  std::vector<int64_t> shape = words.sizes().vec();
  shape.push_back(U.size(1));
  const Tensor u = U.index_select(0, words.flatten()).view(shape);
  return softcap == 0 ? u : u * logits_of((u * x).sum(-1, true)).first;
}

// True where the fused products serve: the head's own weights at rest, nothing capped.
bool CrossEntropyHead::serves_fused(const Tangent& t, const Tensor& x_dot) const {
  return softcap == 0 && x_dot.defined() && !t.directions.touches(table) &&
         fused::serves_logits(x_dot, t.parameters.stored(table).size(0), t.parameters.products());
}

CrossEntropyHead::Result CrossEntropyHead::forward_adjoint(const Primal& p, const Tensor& x, Kept& kept,
                                                           Readout& gradient) const {
  const Tensor U = p.parameters.get(table, x.scalar_type());
  const int64_t rows = x.size(0), step = std::max<int64_t>(1, primal_tile(x.device()) / U.size(0));
  const Tensor weight = p.tokens.weights.to(at::kDouble).unsqueeze(1);
  const auto wide = x.options().dtype(at::kDouble);
  Tensor token_loss = at::zeros({rows, 1}, wide), lse = at::zeros_like(token_loss);
  Tensor x_bar = p.keep ? at::zeros_like(x) : Tensor();
  const bool selected = gradient.wants(table);
  for (int64_t s = 0; s < p.tokens.sequences; ++s) {  // gradients are kept per sequence
    const Tensor counted = p.tokens.cut(s, 0, p.tokens.length).counted() + s * p.tokens.length;
    for (int64_t i = 0; i < counted.numel(); i += step) {
      const Tensor at = counted.slice(0, i, i + step), mine = x.index_select(0, at);
      const Logits logits = logits_of(product(mine, U.t()).to(at::kDouble));
      Tensor z = logits.z;
      const Tensor l = z.logsumexp(-1, true), y = p.tokens.targets.index_select(0, at).unsqueeze(1);
      lse.index_copy_(0, at, l);
      token_loss.index_copy_(0, at, l - z.gather(1, y));
      if (p.keep) {
        z.sub_(l).exp_();
        z.scatter_add_(1, y, at::full_like(l, -1)).mul_(weight.index_select(0, at));
        if (logits.first.defined()) z.mul_(logits.first);
        const Tensor y_bar = z.to(x.scalar_type());
        x_bar.index_copy_(0, at, product(y_bar, U));
        if (selected) gradient.outer(table, y_bar, mine, s);
      }
    }
  }
  const Tensor losses = (token_loss * weight).view({p.tokens.sequences, p.tokens.length}).sum(1);
  if (p.keep) {
    // U^T (z' p) = x_bar / w + z'[target] U[target]; never read where w = 0
    const Tensor w = weight.to(x.scalar_type());
    const Tensor up = at::where(w.gt(0), x_bar / w.clamp_min(1e-300) + rows_of_words(p.tokens.targets, x, U),
                                at::zeros({}, x.options()));
    kept = {x, up, lse};
  }
  return {losses, x_bar};
}

Tensor CrossEntropyHead::plain(const Primal& p, const Tensor& x) const {
  const Tensor token_loss =
      -logits(p.parameters, x).log_softmax(-1).gather(1, p.tokens.targets.unsqueeze(1)).squeeze(1);
  return (token_loss * p.tokens.weights.to(x.scalar_type())).view({p.tokens.sequences, p.tokens.length}).sum(1);
}

template <class F>
void CrossEntropyHead::for_words(const Tangent& t, const Tensor& x_dot, bool whole, F f) const {
  const Tensor U = t.parameters.factor(table);
  const Tensor &x = t.tape[kX], &lse = t.tape[kLse];
  const int64_t words = U.size(0), rows = x.size(0), k = t.alive;
  const int64_t step = word_step(k * rows, words, whole, x.device());
  const bool moved = t.directions.touches(table);
  const Products products = t.parameters.products();
  const Tensor left = x_dot.defined() ? left_factor(x_dot, products) : Tensor();
  Tensor mean = x_dot.defined() && !moved ? (x_dot * t.tape[kUp]).sum(-1, true) : Tensor();  // p.z_dot (K, rows, 1)
  for (int64_t v = 0; v < words; v += step) {
    const int64_t n = std::min(step, words - v);
    const Tensor u = U.narrow(0, v, n);
    const Logits logits = logits_of(product(x, u.to(x.scalar_type()).t()));
    const Words run{v, u, (softcap == 0 ? logits.z.sub_(lse) : logits.z - lse).exp_(), logits.first, logits.second};
    Tensor y_dot = left.defined() ? times(left, u.t(), products) : Tensor();
    if (moved) t.directions.add_linear(table, x, y_dot, k, words);
    if (!y_dot.defined()) continue;
    const Tensor z_dot = run.first.defined() ? y_dot * run.first : y_dot;
    if (moved) mean = (z_dot * run.p).sum(-1, true);
    f(run, z_dot.sub_(mean), run.first.defined() ? y_dot : Tensor());
  }
}

// z_bar = w (p - onehot(target))
Tensor CrossEntropyHead::adjoint_of(const Tangent& t, const Words& words) const {
  const Tensor place = (t.tokens.targets - words.begin).unsqueeze(1);
  const Tensor here = place.ge(0).logical_and(place.lt(words.p.size(1))).to(words.p.scalar_type());
  return words.p.scatter_add(1, place.clamp(0, words.p.size(1) - 1), -here)
      .mul_(t.tokens.weights.to(words.p.scalar_type()).unsqueeze(1));
}

void CrossEntropyHead::add_fused(const Tangent& t, const Tensor& x_dot, Tensor& x_bar_dot) const {
  const Products products = t.parameters.products();
  for_tiles(t, table, x_dot, false, [&](const Tensor& u, const Tensor& left, const Tensor& wp, const Tensor& mean) {
    add_times(x_bar_dot, fused::logits_factor(left, u, wp, mean, products), u, products);
  });
}

Tensor CrossEntropyHead::adjoint_tangent(const Tangent& t, const Tensor& x_dot, Curvature kind, Readout& out) const {
  const Tensor counted = t.tokens.counted();
  if (counted.numel() == t.tokens.rows()) return adjoint_tangent_of_counted(t, x_dot, kind, out);
  if (counted.numel() == 0) return {};
  const CountedTokens c(t, counted);
  const Tensor some = adjoint_tangent_of_counted(c.tangent(t), c.rows_of(x_dot), kind, out);
  return at::zeros({some.size(0), t.tokens.rows(), some.size(2)}, some.options()).index_copy_(1, counted, some);
}

void CrossEntropyHead::second_order(const Tangent& t, const Tensor& x_dot, SecondOrder& form) const {
  const Tensor counted = t.tokens.counted();
  if (counted.numel() == t.tokens.rows()) return second_order_of_counted(t, x_dot, form);
  if (counted.numel() == 0) return;
  const CountedTokens c(t, counted);
  second_order_of_counted(c.tangent(t), c.rows_of(x_dot), form);
}

Tensor CrossEntropyHead::adjoint_tangent_of_counted(const Tangent& t, const Tensor& x_dot, Curvature kind,
                                                    Readout& out) const {
  const bool moved = t.directions.touches(table), reads = out.wants(table);
  const Tensor &x = t.tape[kX], w = t.tokens.weights.to(x.scalar_type()).unsqueeze(1);
  Tensor x_bar_dot = at::zeros({t.alive, x.size(0), x.size(1)}, x.options());
  if (kind != Curvature::residual && !reads && serves_fused(t, x_dot))
    add_fused(t, x_dot, x_bar_dot);
  else if (kind != Curvature::residual || softcap != 0)
    for_words(t, x_dot, moved || reads, [&](const Words& words, const Tensor& z_dot, const Tensor& y_dot) {
      Tensor y_bar_dot;
      if (kind != Curvature::residual) y_bar_dot = z_dot.mul_(words.p * w);
      if (kind != Curvature::residual && softcap != 0) y_bar_dot.mul_(words.first);
      if (kind != Curvature::gauss_newton && softcap != 0)
        y_bar_dot = plus(y_bar_dot, y_dot * (words.second * adjoint_of(t, words)));
      add_times(x_bar_dot, y_bar_dot, words.u, t.parameters.products());
      if (reads) out.outer(table, y_bar_dot, x);
    });
  if (kind != Curvature::gauss_newton && (moved || reads)) {
    const Tensor y_bar = adjoint_of_logits(t);
    if (moved) t.directions.add_linear_transposed(table, y_bar, x_bar_dot, t.alive, x.size(1));
    out.outer(table, y_bar, x_dot);
  }
  return x_bar_dot;
}

void CrossEntropyHead::second_order_of_counted(const Tangent& t, const Tensor& x_dot, SecondOrder& form) const {
  if (!t.directions.touches(table) && x_dot.defined() && t.alive > x_dot.size(2)) {
    // More directions than channels: x_dot_i . (U^T Lambda z_dot_j) costs less than the product over words.
    const Selection none;
    Readout nothing(none, t.alive, x_dot.device());
    form.add_gauss_newton(x_dot, adjoint_tangent_of_counted(t, x_dot, Curvature::gauss_newton, nothing));
    if (softcap != 0) form.add(x_dot, adjoint_tangent_of_counted(t, x_dot, Curvature::residual, nothing));
    if (form.reads().wants(table)) form.reads().outer(table, adjoint_of_logits(t), x_dot);
    return;
  }
  const Tensor w = t.tokens.weights.to(t.tape[kX].scalar_type()).unsqueeze(1);
  if (serves_fused(t, x_dot))
    for_tiles(t, table, x_dot, true, [&](const Tensor& u, const Tensor& left, const Tensor& root, const Tensor& mean) {
      const Tensor planes = fused::logits_planes(left, u, root, mean, t.parameters.products());
      form.add_gauss_newton(planes, planes);
    });
  else
    for_words(t, x_dot, t.directions.touches(table), [&](const Words& words, const Tensor& z_dot, const Tensor& y_dot) {
      z_dot.mul_((words.p * w).sqrt_());
      form.add_gauss_newton(z_dot, z_dot);
      if (softcap != 0) form.add(y_dot, y_dot * (words.second * adjoint_of(t, words)));
    });
  if (form.reads().wants(table)) form.reads().outer(table, adjoint_of_logits(t), x_dot);
}

// y_bar = z' w (p - onehot(target)) for all words
Tensor CrossEntropyHead::adjoint_of_logits(const Tangent& t) const {
  const Tensor& x = t.tape[kX];
  const Logits logits = logits_of(x.mm(t.parameters.get(table, x.scalar_type()).t()));
  const Tensor z_bar = adjoint_of(t, {0, {}, (logits.z - t.tape[kLse]).exp_(), {}, {}});
  return softcap == 0 ? z_bar : z_bar * logits.first;
}

Tensor CrossEntropyHead::root_probabilities(const Tangent& t, const Tensor& u) const {
  const Tensor silent = t.tokens.weights.eq(0).unsqueeze(1);
  const Tensor z = logits_of(product(t.tape[kX], u.t())).z;
  return z.sub_(t.tape[kLse]).mul_(0.5).masked_fill_(silent, -INFINITY).exp_();
}

// y ~ p of each token and probe, the first word whose cumulated probability is above a uniform number: (K, rows).
// Where rounding leaves the sum of p below that number (once in 1e6 tokens in fp32) it is the last word.
Tensor CrossEntropyHead::draw_labels(const Tangent& t, const AdjointStart& start) const {
  const Tensor &x = t.tape[kX], U = t.parameters.get(table, t.parameters.working());
  const Tensor u = start.uniforms_of_tokens(t.tokens, x.device());  // (rows, K)
  const int64_t words = U.size(0), step = word_step(x.size(0), words, false, x.device());
  Tensor y = at::zeros(u.sizes(), u.options().dtype(at::kLong)), sum = at::zeros({x.size(0), 1}, u.options());
  for (int64_t v = 0; v < words; v += step) {
    const int64_t n = std::min(step, words - v);
    const Tensor p = root_probabilities(t, U.narrow(0, v, n)).square_();
    const Tensor cumulated = p.to(at::kDouble).cumsum(1).add_(sum);  // (rows, n)
    y.add_(at::searchsorted(cumulated, u, false, true));
    sum = cumulated.narrow(1, n - 1, 1).clone();
  }
  return y.clamp_max_(words - 1).t().contiguous();
}

Tensor CrossEntropyHead::start_of_logits(const Tangent& t, const AdjointStart& start) const {
  const Tensor& x = t.tape[kX];
  const Tensor root = root_probabilities(t, t.parameters.get(table, t.parameters.working()));  // (rows, V)
  const Tensor p = root.square(), w = t.tokens.weights.to(x.scalar_type()).sqrt().unsqueeze(1);
  const auto onehot = [&](const Tensor& y) {  // y (K, rows) -> (K, rows, V)
    return at::zeros({y.size(0), y.size(1), p.size(1)}, p.options()).scatter_(2, y.unsqueeze(2), 1);
  };
  switch (start.kind) {
    case AdjointStart::Kind::token_signs:
      return start.signs_of_tokens(t.tokens, x.options()) * (w * (p - onehot(t.tokens.targets.unsqueeze(0))));
    case AdjointStart::Kind::labels:
      return w * (p - onehot(draw_labels(t, start)));
    case AdjointStart::Kind::factor: {
      const Tensor a = root * start.signs_of_words(t.tokens, p.size(1), 0, p.size(1), x.options());
      return w * (a - p * a.sum(2, true));
    }
  }
  return {};
}

Tensor CrossEntropyHead::adjoint(const Tangent& t, const AdjointStart& start, Readout& out) const {
  const Tensor &x = t.tape[kX], &up = t.tape[kUp], U = t.parameters.get(table, t.parameters.working());
  const int64_t k = start.count, rows = x.size(0), words = U.size(0);
  const Tensor w = t.tokens.weights.to(x.scalar_type()).sqrt().unsqueeze(1);
  const auto slope = [&](const Tensor& u) { return logits_of(product(x, u.t())).first; };
  if (out.wants(table)) {
    Tensor y_bar = start_of_logits(t, start);
    if (softcap != 0) y_bar = y_bar * slope(U);
    out.outer(table, y_bar, x);
    return product(y_bar.view({k * rows, words}), U).view({k, rows, -1});
  }
  if (start.kind == AdjointStart::Kind::token_signs)
    return start.signs_of_tokens(t.tokens, x.options()) * (w * (up - rows_of_words(t.tokens.targets, x, U)));
  if (start.kind == AdjointStart::Kind::labels) return w * (up - rows_of_words(draw_labels(t, start), x, U));
  // a = sqrt(p) * e, a run of words at a time, and c = sqrt(p).e
  Tensor x_bar = at::zeros({k, rows, x.size(1)}, x.options()), c = at::zeros({k, rows, 1}, x.options());
  Tensor flat = x_bar.view({k * rows, -1});
  const int64_t step = word_step(k * rows, words, false, x.device());
  for (int64_t v = 0; v < words; v += step) {
    const int64_t n = std::min(step, words - v);
    const Tensor u = U.narrow(0, v, n);
    Tensor a = root_probabilities(t, u) * start.signs_of_words(t.tokens, words, v, n, x.options());  // (K, rows, n)
    c.add_(a.sum(2, true));
    if (softcap != 0) a = a * slope(u);
    add_product(flat, a.view({k * rows, n}), u);
  }
  return x_bar.addcmul_(c, up, -1).mul_(w);
}

}  // namespace hesper
