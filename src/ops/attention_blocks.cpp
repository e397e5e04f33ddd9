#include "ops/attention_blocks.h"

#include <limits>

namespace hesper::attention_blocks {
namespace {

struct Block {
  int64_t begin, rows, keys;  // rows [begin, begin + rows) see keys [0, keys)
  Tensor future;              // (rows, keys) bool: true where key > query
  Tensor queries(const Tensor& x) const { return x.defined() ? x.narrow(2, begin, rows) : x; }
  Tensor visible(const Tensor& x) const { return x.defined() ? x.narrow(2, 0, keys) : x; }
};

std::vector<Block> blocks(const Tensor& q) {
  std::vector<Block> out;
  const int64_t tokens = q.size(2);
  for (int64_t i = 0; i < tokens; i += block_rows) {
    const int64_t rows = std::min(block_rows, tokens - i), keys = i + rows;
    const Tensor row = at::arange(i, keys, q.options().dtype(at::kLong)).unsqueeze(1);
    out.push_back({i, rows, keys, at::arange(keys, row.options()).gt(row)});
  }
  return out;
}

Tensor flip(const Tensor& x) { return x.transpose(-1, -2); }
Tensor product(const Tensor& a, const Tensor& b) { return a.defined() && b.defined() ? at::matmul(a, b) : Tensor(); }

Tensor scores(const Block& b, const HeadsTape& tape, double scale) {
  return at::matmul(b.queries(tape.q), flip(b.visible(tape.k)))
      .mul_(scale)
      .masked_fill_(b.future, -std::numeric_limits<double>::infinity());
}
Tensor probabilities(const Block& b, const HeadsTape& tape, double scale) {
  return scores(b, tape, scale).sub_(b.queries(tape.L).unsqueeze(-1)).exp_();
}
// dP - Dl
Tensor centred_dp(const Block& b, const HeadsTape& tape) {
  return at::matmul(b.queries(tape.o_bar), flip(b.visible(tape.v))).sub_(b.queries(tape.Dl).unsqueeze(-1));
}
Tensor score_tangent(const Block& b, const HeadsTape& tape, const HeadsTangents& dot, double scale) {
  const Tensor s = plus(product(b.queries(dot.q), flip(b.visible(tape.k))),
                        dot.k.defined() ? product(b.queries(tape.q), flip(b.visible(dot.k))) : Tensor());
  return s.defined() ? s * scale : s;
}
void add_rows(Tensor& sum, const Block& b, const Tensor& x) {
  if (x.defined()) sum.narrow(2, b.begin, b.rows).add_(x);
}
void add_keys(Tensor& sum, const Block& b, const Tensor& x) {
  if (x.defined()) sum.narrow(2, 0, b.keys).add_(x);
}

}  // namespace

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

void forward(HeadsTape& tape, double scale) {
  tape.o = at::empty_like(tape.q);
  tape.L = at::empty(tape.q.sizes().slice(0, 3), tape.q.options());
  for (const Block& b : blocks(tape.q)) {
    const Tensor s = scores(b, tape, scale), l = s.logsumexp(-1);
    b.queries(tape.L).copy_(l);
    b.queries(tape.o).copy_(at::matmul((s - l.unsqueeze(-1)).exp_(), b.visible(tape.v)));
  }
}

Tensors adjoint(HeadsTape& tape, double scale) {
  tape.Dl = (tape.o_bar * tape.o).sum(-1);
  Tensor q = at::zeros_like(tape.q), k = at::zeros_like(tape.k), v = at::zeros_like(tape.v);
  for (const Block& b : blocks(tape.q)) {
    const Tensor p = probabilities(b, tape, scale), ds = (p * centred_dp(b, tape)).mul_(scale);
    add_rows(q, b, at::matmul(ds, b.visible(tape.k)));
    add_keys(k, b, at::matmul(flip(ds), b.queries(tape.q)));
    add_keys(v, b, at::matmul(flip(p), b.queries(tape.o_bar)));
  }
  return {q, k, v};
}

void forward_tangent(const HeadsTape& tape, HeadsTangents& dot, double scale) {
  const Tensor& any = dot.q.defined() ? dot.q : dot.k.defined() ? dot.k : dot.v;
  const bool moves = dot.q.defined() || dot.k.defined();
  dot.o = at::zeros({any.size(0), tape.q.size(1), tape.q.size(2), tape.v.size(3)}, any.options());
  if (moves) dot.r = at::empty(dot.o.sizes().slice(0, 3), any.options());
  for (const Block& b : blocks(tape.q)) {
    const Tensor p = probabilities(b, tape, scale);
    if (const Tensor s_dot = score_tangent(b, tape, dot, scale); s_dot.defined()) {
      const Tensor r = (p * s_dot).sum(-1);
      b.queries(dot.r).copy_(r);
      add_rows(dot.o, b, at::matmul(p * (s_dot - r.unsqueeze(-1)), b.visible(tape.v)));
    }
    add_rows(dot.o, b, product(p, b.visible(dot.v)));
  }
}

Tensors adjoint_tangent(const HeadsTape& tape, const HeadsTangents& dot, const Tensor& o_bar_dot, double scale) {
  Tensor dl_dot;
  if (o_bar_dot.defined()) dl_dot = (o_bar_dot * tape.o).sum(-1);
  if (dot.o.defined()) dl_dot = plus(dl_dot, (tape.o_bar * dot.o).sum(-1));
  if (!dl_dot.defined()) return {Tensor(), Tensor(), Tensor()};
  const auto zeros = [&] {
    return at::zeros({dl_dot.size(0), tape.q.size(1), tape.q.size(2), tape.q.size(3)}, tape.q.options());
  };
  Tensor q = zeros(), k = zeros(), v = zeros();
  for (const Block& b : blocks(tape.q)) {
    const Tensor p = probabilities(b, tape, scale), dp = centred_dp(b, tape);
    Tensor dp_dot = plus(o_bar_dot.defined() ? product(b.queries(o_bar_dot), flip(b.visible(tape.v))) : Tensor(),
                         dot.v.defined() ? product(b.queries(tape.o_bar), flip(b.visible(dot.v))) : Tensor());
    const Tensor dl = b.queries(dl_dot).unsqueeze(-1);
    Tensor ds_dot = p * (dp_dot.defined() ? dp_dot - dl : -dl);
    if (dot.r.defined()) {
      const Tensor p_dot = p * (score_tangent(b, tape, dot, scale) - b.queries(dot.r).unsqueeze(-1));
      ds_dot.addcmul_(p_dot, dp);
      add_keys(v, b, at::matmul(flip(p_dot), b.queries(tape.o_bar)));
      const Tensor ds = (p * dp).mul_(scale);
      add_rows(q, b, product(ds, b.visible(dot.k)));
      if (dot.q.defined()) add_keys(k, b, product(flip(ds), b.queries(dot.q)));
    }
    if (o_bar_dot.defined()) add_keys(v, b, product(flip(p), b.queries(o_bar_dot)));
    ds_dot.mul_(scale);
    add_rows(q, b, at::matmul(ds_dot, b.visible(tape.k)));
    add_keys(k, b, at::matmul(flip(ds_dot), b.queries(tape.q)));
  }
  return {q, k, v};
}

Tensors second_order(const HeadsTape& tape, const HeadsTangents& dot, double scale) {
  if (!dot.r.defined()) return {Tensor(), Tensor(), Tensor()};  // V alone moves: the op is linear in V
  Tensor q = at::zeros_like(dot.o), k = at::zeros_like(dot.o), v = at::zeros_like(dot.o);
  for (const Block& b : blocks(tape.q)) {
    const Tensor p = probabilities(b, tape, scale), w = p * centred_dp(b, tape);
    const Tensor turned = score_tangent(b, tape, dot, scale).sub_(b.queries(dot.r).unsqueeze(-1));
    Tensor w_dot = w * turned;  // less P rowsum(w_dot): the part that the row's normalisation takes back
    w_dot.sub_(p * w_dot.sum(-1, true)).mul_(scale);
    if (dot.q.defined()) {
      add_rows(q, b, at::matmul(w_dot, b.visible(tape.k)));
      if (dot.k.defined()) add_rows(q, b, at::matmul(w, b.visible(dot.k)).mul_(2 * scale));
    }
    if (dot.k.defined()) add_keys(k, b, at::matmul(flip(w_dot), b.queries(tape.q)));
    if (dot.v.defined()) add_keys(v, b, at::matmul(flip(p * turned), b.queries(tape.o_bar)).mul_(2));
  }
  return {q, k, v};
}

}  // namespace hesper::attention_blocks
