#include "ops/attention.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>

#include "ops/attention_blocks.h"
#include "ops/attention_cpu.h"
#include "ops/attention_fused.h"
#include "ops/cuda/attention_sizes.h"
#include "ops/parameters.h"
#include "ops/second_order.h"

namespace hesper {
namespace {
namespace blocks = attention_blocks;

enum Tape { kQ, kK, kV, kO, kL, kOBar, kDl };         // (rows, H D), (rows, G D) x 2, (rows, H D), (rows, H), ...
enum Tangents { kQDot, kKDot, kVDot, kODot, kRDot };  // (K, rows, .) likewise

// (rows, n) -> (B, T, n)
Tensor by_sequence(const Tensor& x, const Tokens& tokens) {
  return x.defined() ? x.view({tokens.sequences, tokens.length, x.size(-1)}) : x;
}
// The rows of all sequences, one after the other.
Tensor joined(const Tensors& x) { return x.size() == 1 ? x[0] : at::cat(x); }
// (X, H, T) -> (X*T, H)
Tensor row_values(const Tensor& x) { return x.transpose(1, 2).flatten(0, 1).contiguous(); }

blocks::HeadsTape heads_of(const Kept& tape, const Tokens& tokens, const AttentionShape& shape) {
  const int64_t repeat = shape.heads / shape.kv_heads;
  const auto wide = [&](int i) { return blocks::split_heads(by_sequence(tape[i], tokens), shape.heads, 1); };
  const auto shared = [&](int i) { return blocks::split_heads(by_sequence(tape[i], tokens), shape.kv_heads, repeat); };
  const auto rowwise = [&](int i) { return by_sequence(tape[i], tokens).transpose(1, 2).contiguous(); };
  blocks::HeadsTape h{wide(kQ), shared(kK), shared(kV), {}, {}, {}, {}};
  if (tape.size() > kL) h.o = wide(kO), h.L = rowwise(kL);
  if (tape.size() > kDl) h.o_bar = wide(kOBar), h.Dl = rowwise(kDl);
  return h;
}

blocks::HeadsTangents heads_of(const Kept& dot, const AttentionShape& shape) {
  const int64_t repeat = shape.heads / shape.kv_heads;
  return {blocks::split_heads(dot[kQDot], shape.heads, 1), blocks::split_heads(dot[kKDot], shape.kv_heads, repeat),
          blocks::split_heads(dot[kVDot], shape.kv_heads, repeat),
          dot.size() > kODot ? blocks::split_heads(dot[kODot], shape.heads, 1) : Tensor(),
          dot.size() > kRDot && dot[kRDot].defined() ? dot[kRDot].transpose(1, 2) : Tensor()};
}

attention_cpu::Tape flat_of(const Kept& tape) {
  return {tape[kQ], tape[kK], tape[kV], tape[kO], tape[kL], tape[kOBar], tape[kDl]};
}
attention_cpu::Tangents flat_of_tangents(const Kept& dot) {
  return dot.empty() ? attention_cpu::Tangents{}
                     : attention_cpu::Tangents{dot[kQDot], dot[kKDot], dot[kVDot], dot[kODot], dot[kRDot]};
}
}  // namespace

bool Attention::on_cpu(const Tensor& x, int64_t tokens) const {
  return attention_cpu::serves(x) && shape_.plain(tokens);
}
bool Attention::fused(const Tangent& t) const {
  return shape_.plain(t.tokens.length) && attention_fused::serves(shape_, t.tape[kQ], t.parameters.products());
}

OpCost Attention::cost(const OpShapes& s) const {
  const int64_t q = shape_.heads * shape_.width, kv = 2 * shape_.kv_heads * shape_.width, h = shape_.heads;
  // Half of the T x T scores are in the future. Tile products: forward 2, adjoint 5, tangent 4, its adjoint 10; form 4.
  const int64_t keys = std::min(
      {s.tokens, shape_.window > 0 ? 2 * shape_.window : s.tokens, shape_.chunk > 0 ? shape_.chunk : s.tokens});
  const auto tile = static_cast<double>(keys * q);
  return {q, 2 * q + kv + h, 3 * q + kv + 2 * h, h, q + kv, 0, {2 * tile, 5 * tile, 4 * tile, 10 * tile, 4 * tile}};
}

int64_t Attention::scratch_bytes(int64_t tokens, int64_t directions, int64_t element_size, int threads) const {
  if (!shape_.plain(tokens)) return 2 * device_scratch_bytes(tokens, directions, element_size, false);
  return attention_cpu::scratch_bytes(shape_, tokens, directions, element_size, threads);
}

int64_t Attention::primal_scratch_bytes(int64_t tokens, int64_t sequences, int64_t element_size) const {
  if (!shape_.plain(tokens)) return device_scratch_bytes(tokens, sequences, element_size, false);
  // Scores of a block of rows, and the adjoints of q, k and v: of a sequence each, then of all.
  const int64_t widths = (shape_.heads + 2 * shape_.kv_heads) * shape_.width;
  return attention_cpu::primal_scratch_bytes(tokens, element_size, at::get_num_threads()) +
         2 * sequences * tokens * widths * element_size;
}

int64_t Attention::device_scratch_bytes(int64_t tokens, int64_t leading, int64_t element_size, bool fused) const {
  if (fused && shape_.width <= 128) {
    // Of the form: Q', K', V', and either the kernels' workspace or the planes of one of them and of its partner.
    const attention_cuda::Shape s{tokens, shape_.heads, shape_.kv_heads, shape_.width};
    const int64_t q = leading * tokens * shape_.heads * shape_.width, kv = q / shape_.heads * shape_.kv_heads;
    return (q + 2 * kv) * element_size + std::max(attention_cuda::workspace_bytes(s, leading), 8 * q);
  }
  // S, P, dP and dS of a block of rows (S' and S'' too where capped), and q, k, v, o, their adjoints and copies by
  // head.
  const int64_t rows = std::min(blocks::block_rows, tokens);
  const int64_t keys = std::min(
      {tokens, shape_.window > 0 ? rows + shape_.window : tokens, shape_.chunk > 0 ? rows + shape_.chunk : tokens});
  const int64_t scores = (shape_.softcap > 0 ? 6 : 4) * leading * shape_.heads * rows * keys;
  return (scores + 10 * leading * tokens * shape_.heads * shape_.width) * element_size;
}

bool Attention::composed(int64_t tokens) const { return !shape_.plain(tokens); }

Tensor Attention::forward(const Primal& p, const Tensors& x, Kept& kept) const {
  if (on_cpu(x[0], p.tokens.length)) {
    Tensors o, l;
    for (int64_t s = 0; s < p.tokens.sequences; ++s) {
      const auto window = [&](const Tensor& t) { return t.narrow(0, s * p.tokens.length, p.tokens.length); };
      attention_cpu::Tape tape{window(x[0]), window(x[1]), window(x[2]), {}, {}, {}, {}};
      attention_cpu::forward(shape_, tape);
      o.push_back(tape.o), l.push_back(tape.L);
    }
    const Tensor all = joined(o);
    if (p.keep) kept = {x[0], x[1], x[2], all, joined(l)};
    return all;
  }
  blocks::HeadsTape h = heads_of(Kept(x.begin(), x.end()), p.tokens, shape_);
  blocks::forward(h, shape_);
  const Tensor o = blocks::join_heads(h.o, shape_.heads).flatten(0, 1);
  if (p.keep) kept = {x[0], x[1], x[2], o, row_values(h.L)};
  return o;
}

Tensor Attention::plain(const Primal& p, const Tensors& x) const {
  const blocks::HeadsTape h = heads_of(Kept(x.begin(), x.end()), p.tokens, shape_);
  const int64_t n = p.tokens.length;
  Tensor s = at::matmul(h.q * shape_.scale, h.k.transpose(-1, -2));
  if (shape_.softcap > 0) s = (s / shape_.softcap).tanh() * shape_.softcap;
  s = s.masked_fill(blocks::hidden(shape_, 0, n, 0, n, h.q.device()), -std::numeric_limits<double>::infinity());
  return at::matmul(s.softmax(-1), h.v).transpose(1, 2).reshape({p.tokens.rows(), -1});
}

Tensors Attention::adjoint(const Primal& p, const Tensor& y_bar, unsigned, Kept& kept, Readout&) const {
  kept.push_back(y_bar);
  if (on_cpu(y_bar, p.tokens.length)) {
    Tensors dl;
    std::array<Tensors, 3> bars;
    for (int64_t s = 0; s < p.tokens.sequences; ++s) {
      const Kept window = cut_rows(kept, s * p.tokens.length, p.tokens.length);
      attention_cpu::Tape tape{window[kQ], window[kK], window[kV], window[kO], window[kL], window[kOBar], {}};
      const Tensors bar = attention_cpu::adjoint(shape_, tape);
      dl.push_back(tape.Dl);
      for (size_t i = 0; i < bars.size(); ++i) bars[i].push_back(bar[i]);
    }
    kept.push_back(joined(dl));
    return {joined(bars[0]), joined(bars[1]), joined(bars[2])};
  }
  blocks::HeadsTape h = heads_of(kept, p.tokens, shape_);
  h.o_bar = blocks::split_heads(by_sequence(y_bar, p.tokens), shape_.heads, 1);
  const Tensors bar = blocks::adjoint(h, shape_);
  kept.push_back(row_values(h.Dl));
  return {blocks::join_heads(bar[0], shape_.heads).flatten(0, 1),
          blocks::join_heads(bar[1], shape_.kv_heads).flatten(0, 1),
          blocks::join_heads(bar[2], shape_.kv_heads).flatten(0, 1)};
}

Tensor Attention::forward_tangent(const Tangent& t, const Tensors& x_dot, Kept& kept) const {
  if (!x_dot[0].defined() && !x_dot[1].defined() && !x_dot[2].defined()) return {};
  if (on_cpu(t.tape[kQ], t.tokens.length)) {
    attention_cpu::Tangents dot{x_dot[0], x_dot[1], x_dot[2], {}, {}};
    if (t.form) {
      t.form->add_matrix(attention_cpu::tangent_and_form(shape_, flat_of(t.tape), dot));
    } else {
      attention_cpu::forward_tangent(shape_, flat_of(t.tape), dot);
      kept = {dot.q, dot.k, dot.v, dot.o, dot.r};
    }
    return dot.o;
  }
  if (fused(t)) {
    const Products products = t.parameters.products();
    attention_cpu::Tangents dot{x_dot[0], x_dot[1], x_dot[2], {}, {}};
    if (t.form) {
      const Tensors prime = attention_fused::tangent_and_form(shape_, flat_of(t.tape), dot, products);
      for (size_t i = 0; i < prime.size(); ++i) t.form->add(x_dot[i], prime[i]);
    } else {
      attention_fused::forward_tangent(shape_, flat_of(t.tape), dot, products);
      kept = {dot.q, dot.k, dot.v, dot.o, dot.r};
    }
    return dot.o;
  }
  kept = {x_dot[0], x_dot[1], x_dot[2]};
  blocks::HeadsTangents dot = heads_of(kept, shape_);
  blocks::forward_tangent(heads_of(t.tape, t.tokens, shape_), dot, shape_);
  const Tensor o_dot = blocks::join_heads(dot.o, shape_.heads);
  kept.insert(kept.end(), {o_dot, dot.r.defined() ? dot.r.transpose(1, 2).contiguous() : Tensor()});
  return o_dot;
}

Tensors Attention::adjoint_tangent(const Tangent& t, const Tensor& y_bar_dot, const Kept& kept, Readout&) const {
  if (on_cpu(t.tape[kQ], t.tokens.length))
    return attention_cpu::adjoint_tangent(shape_, flat_of(t.tape), flat_of_tangents(kept), y_bar_dot, t.wanted);
  if (fused(t))
    return attention_fused::adjoint_tangent(shape_, flat_of(t.tape), flat_of_tangents(kept), y_bar_dot, t.wanted,
                                            t.parameters.products());
  const Tensors bar = blocks::adjoint_tangent(heads_of(t.tape, t.tokens, shape_),
                                              kept.empty() ? blocks::HeadsTangents{} : heads_of(kept, shape_),
                                              blocks::split_heads(y_bar_dot, shape_.heads, 1), shape_);
  return {blocks::join_heads(bar[0], shape_.heads), blocks::join_heads(bar[1], shape_.kv_heads),
          blocks::join_heads(bar[2], shape_.kv_heads)};
}

void Attention::second_order(const Tangent& t, const Kept& kept, SecondOrder& form) const {
  if (kept.empty()) return;
  const blocks::HeadsTangents dot = heads_of(kept, shape_);
  const Tensors bar = blocks::second_order(heads_of(t.tape, t.tokens, shape_), dot, shape_);
  form.add(dot.q, bar[0]);
  form.add(dot.k, bar[1]);
  form.add(dot.v, bar[2]);
}

}  // namespace hesper
