// Random adjoints of the logits, carried back to the weights: the pass for given random numbers against autograd, their
// mean squares by enumeration of all random numbers and by sampling, and the random numbers themselves.
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <map>

#include "tangent/tangent_pass.h"
#include "tangent/toy_models.h"

namespace hesper::test {
namespace {

using Kind = AdjointStart::Kind;
constexpr Kind kKinds[] = {Kind::token_signs, Kind::factor, Kind::labels};
// As in test_tangent_pass.cpp: both sides round at 1e-16 an operation.
constexpr double kTolerance = 1e-12;

double error(const Tensor& a, const Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }

/// Logits (T, V) of window s, differentiable in theta (n), the selected entries.
struct Logits {
  Tensor theta, z;
  Logits(const Toy& toy, const Selection& selection, int64_t s) {
    const at::AutoGradMode grad(true);
    Tensors parts;
    for (const SelectedPart& part : selection.parts())
      parts.push_back(toy.values[part.parameter].flatten().index_select(0, part.entries()));
    theta = at::cat(parts).requires_grad_(true);
    std::vector<std::pair<int, Tensor>> replaced;
    for (const SelectedPart& part : selection.parts()) {
      const Tensor& w = toy.values[part.parameter];
      replaced.emplace_back(
          part.parameter, w.flatten().index_copy(0, part.entries(), theta.narrow(0, part.begin, part.size)).view_as(w));
    }
    const Parameters moved = toy.parameters().with(replaced);
    const Tokens tokens = toy.tokens.cut(s, 0, toy.tokens.length);
    const Selection nothing;
    const Primal p{tokens, moved, nothing, at::kDouble, false};
    Tensors values(toy.program->values());
    for (const auto& op : toy.program->ops()) {
      Tensors x;
      for (int v : op->inputs) x.push_back(values[v]);
      values[op->output] = op->plain(p, x);
    }
    z = toy.program->cross_entropy().logits(moved, values[toy.program->cross_entropy().input]);
  }
  /// (n)
  Tensor adjoint(const Tensor& z_bar) const {
    const at::AutoGradMode grad(true);
    return torch::autograd::grad({z}, {theta}, {z_bar}, true)[0];
  }
};

/// The labels that uniform numbers draw, word by word.
Tensor labels_of(const Tensor& p, const Tensor& uniforms) {  // (T, V), (T, K) -> (K, T)
  Tensor y = at::empty({uniforms.size(1), p.size(0)}, at::kLong);
  const auto at_p = p.accessor<double, 2>(), at_u = uniforms.accessor<double, 2>();
  for (int64_t k = 0; k < y.size(0); ++k)
    for (int64_t t = 0; t < y.size(1); ++t) {
      double sum = 0;
      int64_t v = 0;
      while (v + 1 < p.size(1) && (sum += at_p[t][v]) <= at_u[t][k]) ++v;
      y[k][t] = v;
    }
  return y;
}

/// z_bar (K, T, V) by its formula.
Tensor z_bar_of(const Tensor& z, const Tokens& tokens, const AdjointStart& start) {
  const Tensor p = z.detach().softmax(1);
  const auto onehot = [&](const Tensor& y) { return at::one_hot(y, p.size(1)).to(at::kDouble); };
  Tensor r;
  if (start.kind == Kind::token_signs) {
    r = start.signs_of_tokens(tokens, p.options()) * (p - onehot(tokens.targets));
  } else if (start.kind == Kind::factor) {
    const Tensor e = start.signs_of_words(tokens, p.size(1), 0, p.size(1), p.options());
    r = p.sqrt() * e - p * (p.sqrt() * e).sum(2, true);
  } else {
    r = p - onehot(labels_of(p, start.uniforms_of_tokens(tokens, at::kCPU)));
  }
  return r * tokens.weights.sqrt().unsqueeze(1);
}

void expect_adjoints(const Toy& toy, const Selection& selection, int64_t probes) {
  const Parameters parameters = toy.parameters();
  const Tape tape = run_primal(*toy.program, parameters, selection, toy.tokens, at::kDouble);
  for (const int64_t cut : {3 * probes, int64_t{1} << 20}) {  // cuts of 3 tokens, all at once
    const TangentPass pass(*toy.program, parameters, selection, tape, cut);
    for (int64_t s = 0; s < toy.tokens.sequences; ++s)
      for (const Kind kind : kKinds) {
        const AdjointStart start{kind, 77, 1000 + s, 5, probes};
        const Tensor got = pass.adjoint(start, s);
        const Logits logits(toy, selection, s);
        const Tensor z_bar = z_bar_of(logits.z, toy.tokens.cut(s, 0, toy.tokens.length), start);
        for (const int64_t k : {int64_t{0}, probes / 2, probes - 1})
          EXPECT_LT(error(got[k], logits.adjoint(z_bar[k])), kTolerance) << static_cast<int>(kind) << " window " << s;
      }
  }
}

TEST(AdjointStart, OptEveryParameter) {
  const Toy toy = make_toy({});
  expect_adjoints(toy, toy.select_everywhere(3), 3);
}
TEST(AdjointStart, OptPostNormWholeLayers) {
  const Toy toy = make_toy({.phi = Phi::relu, .tied = false, .pre_norm = false});
  Selection selection;
  for (const char* name : {"0.k.weight", "0.k.bias", "0.n2.weight", "1.down.weight", "lm_head"})
    selection.add_whole(toy.program->parameter(name), toy.values[toy.program->parameter(name)].sizes());
  expect_adjoints(toy, selection, 2);
}
TEST(AdjointStart, LlamaOneKvHead) {
  const Toy toy = make_toy({.llama = true, .kv_heads = 1, .phi = Phi::silu});
  expect_adjoints(toy, toy.select({{"1.q.weight", {0, 9, 40}}, {"1.gate.weight", {5, 6}}}), 3);
}
// Enough probes for words to come in runs of 128.
TEST(AdjointStart, ManyWords) {
  const Toy toy = make_toy({.vocab = 300, .width = 8, .heads = 2, .kv_heads = 2, .hidden = 8, .blocks = 1});
  expect_adjoints(toy, toy.select({{"0.v.weight", {0, 9, 40}}}), 640);
}

TEST(AdjointStart, ProbesDoNotDependOnTheirSplit) {
  const Toy toy = make_toy({});
  const Selection selection = toy.select_everywhere(2);
  const Parameters parameters = toy.parameters();
  const Tape tape = run_primal(*toy.program, parameters, selection, toy.tokens, at::kDouble);
  const TangentPass pass(*toy.program, parameters, selection, tape);
  for (const Kind kind : kKinds) {
    const Tensor all = pass.adjoint({kind, 1, 4, 0, 6}, 1);
    const Tensor parts = at::cat({pass.adjoint({kind, 1, 4, 0, 2}, 1), pass.adjoint({kind, 1, 4, 2, 4}, 1)});
    EXPECT_LT(error(parts, all), kTolerance);
    EXPECT_GT(error(pass.adjoint({kind, 2, 4, 0, 6}, 1), all), 0.1);  // another seed
    EXPECT_GT(error(pass.adjoint({kind, 1, 5, 0, 6}, 1), all), 0.1);  // another window
    EXPECT_GT(error(all.narrow(0, 0, 3), all.narrow(0, 3, 3)), 0.1);  // another probe
  }
}

/// What the mean square of `kind` must be: diag G, or sum_t w (dl_t/dw)^2 token by token.
Tensor expected(const Toy& toy, const Selection& selection, const Tape& tape, int64_t s, Kind kind) {
  const Parameters parameters = toy.parameters();
  if (kind != Kind::token_signs)
    return TangentPass(*toy.program, parameters, selection, tape)
        .second_order(Directions::units(selection, 0, selection.size(), at::kDouble), s)
        .gauss_newton.diagonal();
  Tensor sum = at::zeros({selection.size()}, at::kDouble);
  for (int64_t t = 0; t < toy.tokens.length; ++t) {
    Tokens one = toy.tokens.cut(s, 0, toy.tokens.length);
    const double w = one.weights[t].item<double>();
    if (w == 0) continue;
    one.weights = at::zeros_like(one.weights);
    one.weights[t] = 1;
    sum += w * run_primal(*toy.program, parameters, selection, one, at::kDouble).gradient[0].square();
  }
  return sum;
}

// One predicted token of 3 words (two tokens for token signs): every value of the random numbers turns up among the
// probes, so the mean over their values, each with its probability, is the exact expectation.
TEST(AdjointStart, ExpectationByEnumeration) {
  for (const Kind kind : kKinds) {
    const int64_t length = kind == Kind::token_signs ? 3 : 2;
    const Toy toy = make_toy({.vocab = 3, .windows = 1, .tokens = length});
    const Selection selection = toy.select_everywhere(3);
    const Parameters parameters = toy.parameters();
    const Tape tape = run_primal(*toy.program, parameters, selection, toy.tokens, at::kDouble);
    const AdjointStart start{kind, 3, 0, 0, kind == Kind::labels ? 1 << 15 : 512};
    const Tensor squares = TangentPass(*toy.program, parameters, selection, tape).adjoint(start, 0).square();

    const Tensor p = Logits(toy, selection, 0).z.detach().softmax(1);
    const Tensor words = start.signs_of_words(toy.tokens, 3, 0, 3, p.options());
    const Tensor signs = start.signs_of_tokens(toy.tokens, p.options());
    const Tensor labels = labels_of(p, start.uniforms_of_tokens(toy.tokens, at::kCPU));
    std::map<std::vector<int64_t>, int64_t> first;  // value of the random numbers -> a probe that has it
    Tensor mean = at::zeros({selection.size()}, at::kDouble);
    double total = 0;
    for (int64_t k = 0; k < start.count; ++k) {
      std::vector<int64_t> value;
      double probability = 1;
      for (int64_t t = 0; t + 1 < length; ++t) {
        if (kind == Kind::token_signs) value.push_back(signs[k][t][0].item<int64_t>()), probability /= 2;
        if (kind == Kind::labels) {
          value.push_back(labels[k][t].item<int64_t>());
          probability *= p[t][value.back()].item<double>();
        }
        for (int64_t v = 0; kind == Kind::factor && v < 3; ++v)
          value.push_back(words[k][t][v].item<int64_t>()), probability /= 2;
      }
      if (!first.emplace(value, k).second) continue;
      mean += probability * squares[k];
      total += probability;
    }
    ASSERT_NEAR(total, 1, 1e-12) << "not all values turned up";
    EXPECT_LT(error(mean, expected(toy, selection, tape, 0, kind)), kTolerance) << static_cast<int>(kind);
  }
}

// 5 standard errors a weight: for 12 weights and 3 kinds a chance of 1 in 40,000 that a right one fails, and the
// numbers are always the same ones.
TEST(AdjointStart, MeanSquaresAreUnbiased) {
  const Toy toy = make_toy({});
  // No weights without influence, such as the bias of k.
  const Selection selection = toy.select({{"embed", {0, 40}},
                                          {"0.n1.weight", {3}},
                                          {"0.q.weight", {0, 9, 40}},
                                          {"0.v.bias", {2}},
                                          {"1.up.weight", {5, 100}},
                                          {"1.down.weight", {7, 200}},
                                          {"norm.bias", {1}}});
  const Parameters parameters = toy.parameters();
  const Tape tape = run_primal(*toy.program, parameters, selection, toy.tokens, at::kDouble);
  const TangentPass pass(*toy.program, parameters, selection, tape);
  const int64_t m = 4096;
  for (const Kind kind : kKinds) {
    const Tensor squares = pass.adjoint({kind, 11, 0, 0, m}, 0).square();
    const Tensor mean = squares.mean(0), truth = expected(toy, selection, tape, 0, kind);
    const Tensor bar = squares.std(0) / std::sqrt(static_cast<double>(m));
    EXPECT_LT(((mean - truth).abs() / bar).max().item<double>(), 5) << static_cast<int>(kind);
    // The bars are tight enough to say something: sqrt(2/m) = 2% for sums of many signs.
    EXPECT_LT((bar / truth).median().item<double>(), 0.05);
  }
}

TEST(AdjointStart, SignsOfWordsDoNotDependOnTheirRuns) {
  const Tokens tokens{1, 5, 2, {}, {}, {}};
  const AdjointStart start{Kind::factor, 9, 3, 0, 4};
  const Tensor all = start.signs_of_words(tokens, 700, 0, 700, at::kFloat);
  EXPECT_TRUE(at::equal(all.abs(), at::ones_like(all)));
  EXPECT_TRUE(at::equal(all.narrow(2, 256, 444), start.signs_of_words(tokens, 700, 256, 444, at::kFloat)));
  const Tokens part{1, 2, 4, {}, {}, {}};
  EXPECT_TRUE(at::equal(all.narrow(1, 2, 2), start.signs_of_words(part, 700, 0, 700, at::kFloat)));
  std::vector<double> one(700);
  fill_signs({9, word_stream, 3, 1}, 4 * 768, std::span<double>(one));  // probe 1, token 4
  EXPECT_TRUE(at::equal(all[1][2], at::tensor(one).to(at::kFloat)));
  // 14,000 fair signs: 4 standard deviations are 473. Neighbours agree as often as not.
  EXPECT_LT(std::abs(all.sum().item<double>()), 473);
  EXPECT_LT(std::abs((all.narrow(2, 1, 699) * all.narrow(2, 0, 699)).sum().item<double>()), 473);
}

}  // namespace
}  // namespace hesper::test
