#include "ops/attention_blocks.h"

#include <algorithm>
#include <limits>

namespace hesper::attention_blocks {
namespace {

/// Rows [begin, begin + rows) see keys [first, first + keys) at most.
struct Block {
  const AttentionShape& shape;
  int64_t begin, rows, first, keys;
  Tensor hidden;  // (rows, keys) bool
  Tensor queries(const Tensor& x) const { return x.defined() ? x.narrow(2, begin, rows) : x; }
  Tensor visible(const Tensor& x) const { return x.defined() ? x.narrow(2, first, keys) : x; }
};

int64_t first_key(const AttentionShape& shape, int64_t row) {
  int64_t first = 0;
  if (shape.window > 0) first = std::max(first, row - shape.window + 1);
  if (shape.chunk > 0) first = std::max(first, row / shape.chunk * shape.chunk);
  return first;
}

std::vector<Block> blocks(const AttentionShape& shape, const Tensor& q) {
  std::vector<Block> out;
  const int64_t tokens = q.size(2);
  for (int64_t i = 0; i < tokens; i += block_rows) {
    const int64_t rows = std::min(block_rows, tokens - i), first = first_key(shape, i), keys = i + rows - first;
    out.push_back({shape, i, rows, first, keys, hidden(shape, i, rows, first, keys, q.device())});
  }
  return out;
}

Tensor flip(const Tensor& x) { return x.transpose(-1, -2); }
Tensor product(const Tensor& a, const Tensor& b) { return a.defined() && b.defined() ? at::matmul(a, b) : Tensor(); }
// a * b where undefined is one.
Tensor times(const Tensor& a, const Tensor& b) { return b.defined() ? a * b : a; }

/// S of a block's rows, -inf where hidden; S' and S'' where scores are capped.
struct Scores {
  Tensor s, first, second;
};
Scores scores(const Block& b, const HeadsTape& tape) {
  Scores out{at::matmul(b.queries(tape.q), flip(b.visible(tape.k))).mul_(b.shape.scale), {}, {}};
  if (const double cap = b.shape.softcap; cap > 0) {
    const Tensor th = (out.s / cap).tanh_();
    out.first = 1 - th.square();
    out.second = th * out.first * (-2 / cap);
    out.s = th * cap;
  }
  out.s.masked_fill_(b.hidden, -std::numeric_limits<double>::infinity());
  return out;
}
// Likewise, P in the place of S.
Scores probabilities(const Block& b, const HeadsTape& tape) {
  Scores out = scores(b, tape);
  out.s.sub_(b.queries(tape.L).unsqueeze(-1)).exp_();
  return out;
}
// dP - Dl
Tensor centred_dp(const Block& b, const HeadsTape& tape) {
  return at::matmul(b.queries(tape.o_bar), flip(b.visible(tape.v))).sub_(b.queries(tape.Dl).unsqueeze(-1));
}
// U_dot, the tangent of the scores before a cap
Tensor score_tangent(const Block& b, const HeadsTape& tape, const HeadsTangents& dot) {
  const Tensor u = plus(product(b.queries(dot.q), flip(b.visible(tape.k))),
                        dot.k.defined() ? product(b.queries(tape.q), flip(b.visible(dot.k))) : Tensor());
  return u.defined() ? u * b.shape.scale : u;
}
void add_rows(Tensor& sum, const Block& b, const Tensor& x) {
  if (x.defined()) sum.narrow(2, b.begin, b.rows).add_(x);
}
void add_keys(Tensor& sum, const Block& b, const Tensor& x) {
  if (x.defined()) sum.narrow(2, b.first, b.keys).add_(x);
}

}  // namespace

Tensor hidden(const AttentionShape& shape, int64_t first_row, int64_t rows, int64_t first_key, int64_t keys,
              at::Device device) {
  const auto positions = [&](int64_t begin, int64_t count) {
    return at::arange(begin, begin + count, at::TensorOptions(at::kLong).device(device));
  };
  const Tensor row = positions(first_row, rows).unsqueeze(1), key = positions(first_key, keys);
  Tensor out = key.gt(row);
  if (shape.window > 0) out = out.logical_or(key.le(row - shape.window));
  if (shape.chunk > 0) out = out.logical_or(key.lt(at::floor_divide(row, shape.chunk) * shape.chunk));
  return out;
}

Tensor split_heads(const Tensor& x, int64_t n, int64_t repeat) {
  if (!x.defined()) return x;
  const Tensor h = x.unflatten(-1, {n, -1}).transpose(1, 2);
  return repeat == 1 ? h.contiguous() : h.repeat_interleave(repeat, 1);
}

Tensor join_heads(const Tensor& x, int64_t n) {
  if (!x.defined()) return x;
  const Tensor h = x.size(1) == n ? x : x.unflatten(1, {n, -1}).sum(2);
  return h.transpose(1, 2).flatten(2);
}

void forward(HeadsTape& tape, const AttentionShape& shape) {
  tape.o = at::empty_like(tape.q);
  tape.L = at::empty(tape.q.sizes().slice(0, 3), tape.q.options());
  for (const Block& b : blocks(shape, tape.q)) {
    const Tensor s = scores(b, tape).s, l = s.logsumexp(-1);
    b.queries(tape.L).copy_(l);
    b.queries(tape.o).copy_(at::matmul((s - l.unsqueeze(-1)).exp_(), b.visible(tape.v)));
  }
}

Tensors adjoint(HeadsTape& tape, const AttentionShape& shape) {
  tape.Dl = (tape.o_bar * tape.o).sum(-1);
  Tensor q = at::zeros_like(tape.q), k = at::zeros_like(tape.k), v = at::zeros_like(tape.v);
  for (const Block& b : blocks(shape, tape.q)) {
    const auto [p, first, second] = probabilities(b, tape);
    const Tensor du = times(p * centred_dp(b, tape), first).mul_(shape.scale);
    add_rows(q, b, at::matmul(du, b.visible(tape.k)));
    add_keys(k, b, at::matmul(flip(du), b.queries(tape.q)));
    add_keys(v, b, at::matmul(flip(p), b.queries(tape.o_bar)));
  }
  return {q, k, v};
}

void forward_tangent(const HeadsTape& tape, HeadsTangents& dot, const AttentionShape& shape) {
  const Tensor& any = dot.q.defined() ? dot.q : dot.k.defined() ? dot.k : dot.v;
  const bool moves = dot.q.defined() || dot.k.defined();
  dot.o = at::zeros({any.size(0), tape.q.size(1), tape.q.size(2), tape.v.size(3)}, any.options());
  if (moves) dot.r = at::empty(dot.o.sizes().slice(0, 3), any.options());
  for (const Block& b : blocks(shape, tape.q)) {
    const auto [p, first, second] = probabilities(b, tape);
    if (const Tensor u_dot = score_tangent(b, tape, dot); u_dot.defined()) {
      const Tensor s_dot = times(u_dot, first), r = (p * s_dot).sum(-1);
      b.queries(dot.r).copy_(r);
      add_rows(dot.o, b, at::matmul(p * (s_dot - r.unsqueeze(-1)), b.visible(tape.v)));
    }
    add_rows(dot.o, b, product(p, b.visible(dot.v)));
  }
}

Tensors adjoint_tangent(const HeadsTape& tape, const HeadsTangents& dot, const Tensor& o_bar_dot,
                        const AttentionShape& shape) {
  Tensor dl_dot;
  if (o_bar_dot.defined()) dl_dot = (o_bar_dot * tape.o).sum(-1);
  if (dot.o.defined()) dl_dot = plus(dl_dot, (tape.o_bar * dot.o).sum(-1));
  if (!dl_dot.defined()) return {Tensor(), Tensor(), Tensor()};
  const auto zeros = [&] {
    return at::zeros({dl_dot.size(0), tape.q.size(1), tape.q.size(2), tape.q.size(3)}, tape.q.options());
  };
  Tensor q = zeros(), k = zeros(), v = zeros();
  for (const Block& b : blocks(shape, tape.q)) {
    const auto [p, first, second] = probabilities(b, tape);
    const Tensor dp = centred_dp(b, tape);
    Tensor dp_dot = plus(o_bar_dot.defined() ? product(b.queries(o_bar_dot), flip(b.visible(tape.v))) : Tensor(),
                         dot.v.defined() ? product(b.queries(tape.o_bar), flip(b.visible(dot.v))) : Tensor());
    const Tensor dl = b.queries(dl_dot).unsqueeze(-1);
    Tensor du_dot = p * (dp_dot.defined() ? dp_dot - dl : -dl);  // dS_dot at first
    Tensor bent;                                                 // S'' U_dot dS
    if (dot.r.defined()) {
      const Tensor u_dot = score_tangent(b, tape, dot), ds = p * dp;
      const Tensor p_dot = p * (times(u_dot, first) - b.queries(dot.r).unsqueeze(-1));
      du_dot.addcmul_(p_dot, dp);
      if (second.defined()) bent = u_dot * (second * ds);
      add_keys(v, b, at::matmul(flip(p_dot), b.queries(tape.o_bar)));
      const Tensor du = times(ds, first) * shape.scale;
      add_rows(q, b, product(du, b.visible(dot.k)));
      if (dot.q.defined()) add_keys(k, b, product(flip(du), b.queries(dot.q)));
    }
    if (o_bar_dot.defined()) add_keys(v, b, product(flip(p), b.queries(o_bar_dot)));
    if (first.defined()) du_dot.mul_(first);
    if (bent.defined()) du_dot.add_(bent);
    du_dot.mul_(shape.scale);
    add_rows(q, b, at::matmul(du_dot, b.visible(tape.k)));
    add_keys(k, b, at::matmul(flip(du_dot), b.queries(tape.q)));
  }
  return {q, k, v};
}

Tensors second_order(const HeadsTape& tape, const HeadsTangents& dot, const AttentionShape& shape) {
  if (!dot.r.defined()) return {Tensor(), Tensor(), Tensor()};  // V alone moves: the op is linear in V
  Tensor q = at::zeros_like(dot.o), k = at::zeros_like(dot.o), v = at::zeros_like(dot.o);
  for (const Block& b : blocks(shape, tape.q)) {
    const auto [p, first, second] = probabilities(b, tape);
    const Tensor w = p * centred_dp(b, tape), u_dot = score_tangent(b, tape, dot);
    const Tensor turned = times(u_dot, first) - b.queries(dot.r).unsqueeze(-1);
    Tensor w_dot = w * turned;  // less P rowsum(w_dot): the part that the row's normalisation takes back
    w_dot.sub_(p * w_dot.sum(-1, true));
    if (first.defined()) w_dot.mul_(first).addcmul_(u_dot, w * second);
    w_dot.mul_(shape.scale);
    if (dot.q.defined()) {
      add_rows(q, b, at::matmul(w_dot, b.visible(tape.k)));
      if (dot.k.defined()) add_rows(q, b, at::matmul(times(w, first), b.visible(dot.k)).mul_(2 * shape.scale));
    }
    if (dot.k.defined()) add_keys(k, b, at::matmul(flip(w_dot), b.queries(tape.q)));
    if (dot.v.defined()) add_keys(v, b, at::matmul(flip(p * turned), b.queries(tape.o_bar)).mul_(2));
  }
  return {q, k, v};
}

}  // namespace hesper::attention_blocks
