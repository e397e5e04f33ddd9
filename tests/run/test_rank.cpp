// What directions are ranked by, in fp64: every proxy against its formula, correlations by hand.
#include "run/rank.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/build_program.h"
#include "run/quadratic.h"
#include "run/rank_proxies.h"
#include "tangent/tangent_pass.h"

namespace hesper::test {
namespace {

Tensor doubles(const std::vector<double>& values) { return at::tensor(values, at::kDouble); }
RankColumn column(const std::vector<double>& values) { return {"", doubles(values).unsqueeze(0)}; }

TEST(Rank, PlacesByHand) {
  EXPECT_EQ(column({0.5, -2, 3, 0.5}).places(), (std::vector<int64_t>{2, 4, 1, 3}));
  EXPECT_EQ(column({NAN, 1, 2}).places(), (std::vector<int64_t>{0, 2, 1}));
  EXPECT_TRUE(column({1, 2}).standard_error().isnan().all().item<bool>());
  const RankColumn two{"", at::stack({doubles({1, 5}), doubles({3, 5})})};
  EXPECT_TRUE(at::allclose(two.mean(), doubles({2, 5})));
  EXPECT_TRUE(at::allclose(two.standard_error(), doubles({1, 0})));  // sqrt(2) / sqrt(2)
}

TEST(Rank, SpearmanByHand) {
  // Places 1 2 3 4 5 against 2 1 4 3 5: 1 - 6 * 4 / (5 * 24) = 0.8.
  const RankColumn a = column({1, 2, 3, 4, 5});
  EXPECT_NEAR(rank_correlation(a, column({20, 10, 40, 30, 50})).spearman, 0.8, 1e-14);
  EXPECT_NEAR(rank_correlation(a, column({-1, -2, -3, -4, -5})).spearman, -1, 1e-14);
  EXPECT_TRUE(std::isnan(rank_correlation(a, column({20, 10, 40, 30, 50})).error));
  // Where one has no value both leave it out: 1 2 3 against 3 1 2 is 1 - 6 * 6 / (3 * 8) = -0.5.
  const RankCorrelation some = rank_correlation(a, column({9, NAN, 1, NAN, 2}));
  EXPECT_NEAR(some.spearman, -0.5, 1e-14);
  EXPECT_EQ(some.directions, 3);
  EXPECT_TRUE(std::isnan(rank_correlation(a, column({NAN, NAN, NAN, NAN, NAN})).spearman));
  EXPECT_TRUE(std::isnan(rank_correlation(a, column({1, 1, 1, 1, 1})).spearman));
}

TEST(Rank, JackknifeByHand) {
  // Three windows of three directions against the order 1 2 3. Without window 0 the means are (4, 3, 5) / 2: 0.5;
  // without 1 (2, 6, 5) / 2: 0.5; without 2 (4, 5, 4) / 2, places 1.5 3 1.5: 0.
  const RankColumn a{"", at::stack({doubles({1, 4, 2}), doubles({3, 1, 2}), doubles({1, 2, 3})})};
  const RankCorrelation got = rank_correlation(a, column({1, 2, 3}));
  // Means (5, 7, 7) / 3: places 1, 2.5, 2.5 against 1 2 3: 1.5 / sqrt(1.5 * 2).
  EXPECT_NEAR(got.spearman, 1.5 / std::sqrt(3.0), 1e-14);
  const double mean = 1.0 / 3, squares = 2 * (0.5 - mean) * (0.5 - mean) + mean * mean;
  EXPECT_NEAR(got.error, std::sqrt(2.0 / 3 * squares), 1e-14);
}

/// A golden model, windows, the step to a nudged copy, and the tape of all windows.
struct World {
  Model model;
  Windows windows;
  NamedDirections named;
  Program program;
  Parameters parameters;
  Selection selection;
  Tape tape;

  World(const std::string& name, Grouping grouping, const std::vector<std::string>& moved)
      : model(load_model(HESPER_SOURCE_DIR "/tests/golden/" + name)),
        windows(random_windows(model)),
        named(directions_between(model.weights, nudged(model, moved), grouping)),
        program(build_program(model.config(), windows.ids.size(1))),
        parameters(model.weights.values, at::kDouble, at::kCPU),
        selection(named.selection()),
        tape(run_primal(program, parameters, selection, make_tokens(windows.ids, windows.labels, at::kCPU),
                        at::kDouble)) {}

  static Windows random_windows(const Model& model) {
    at::manual_seed(3);
    Windows w;
    w.ids = at::randint(4, model.config().vocab, {3, 11}, at::kLong);
    w.labels = w.ids.clone();
    w.index = {7, 8, 20};
    return w;
  }
  /// Every parameter whose name has one of `moved` in it.
  static Weights nudged(const Model& model, const std::vector<std::string>& moved) {
    at::manual_seed(4);
    Weights out = model.weights;
    for (size_t p = 0; p < out.specs.size(); ++p)
      for (const std::string& part : moved)
        if (out.specs[p].name.find(part) != std::string::npos)
          out.values[p] = out.values[p].to(at::kDouble) + 1e-2 * at::randn(out.values[p].sizes(), at::kDouble);
    return out;
  }
  WindowProxies proxies(int64_t place, int64_t window) const {
    return window_proxies(program, parameters, selection, tape, place, window, named);
  }
};

double error(const Tensor& a, const Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }

TEST(Rank, FisherIsTheSquaredGradientOfTheWindow) {
  for (const char* name : {"opt-gelu", "llama-bias"}) {  // both with biases
    const World w(name, Grouping::layer, {"proj", "fc"});
    for (int64_t s = 0; s < 3; ++s) {
      Selection whole;
      for (const Move& move : w.named.moves) whole.add_whole(move.parameter, move.values.sizes());
      const Tape tape = run_primal(w.program, w.parameters, whole, w.tape.tokens, at::kDouble);
      Tensor expected = at::zeros({w.named.count()}, at::kDouble);
      for (size_t i = 0; i < w.named.moves.size(); ++i) {
        const Move& move = w.named.moves[i];
        const SelectedPart& part = whole.parts()[i];
        expected[move.direction] +=
            (tape.gradient[s].narrow(0, part.begin, part.size) * move.values.to(at::kDouble).flatten()).square().sum();
      }
      EXPECT_LT(error(w.proxies(s, 0).fisher, expected), 1e-12) << name;
    }
  }
}

TEST(Rank, OutputErrorIsThatOfTheLayersOutput) {
  const World w("opt-gelu", Grouping::layer, {"proj", "fc"});
  Selection matrices;
  for (const Move& move : w.named.moves)
    if (move.values.dim() == 2) matrices.add_whole(move.parameter, move.values.sizes());
  const LayerInputs read = run_layer_inputs(w.program, w.parameters, matrices, w.tape.tokens, at::kDouble);
  for (int64_t s = 0; s < 3; ++s) {
    Tensors outputs(static_cast<size_t>(w.named.count()));
    for (const Move& move : w.named.moves) {
      Tensor& y = outputs[static_cast<size_t>(move.direction)];
      const Tensor d = move.values.to(at::kDouble);
      if (d.dim() == 1) {
        y = y + d;  // the bias comes after the matrix in the model's order
        continue;
      }
      for (size_t i = 0; i < matrices.parts().size(); ++i)
        if (matrices.parts()[i].parameter == move.parameter)
          y = at::matmul(read.inputs[i].narrow(0, s * 11, 11), d.t());
    }
    Tensor expected = at::zeros({w.named.count()}, at::kDouble);
    for (int64_t k = 0; k < w.named.count(); ++k) expected[k] = outputs[static_cast<size_t>(k)].square().sum(1).mean();
    EXPECT_LT(error(w.proxies(s, 0).output_error, expected), 1e-12);
  }
}

TEST(Rank, WhatIsNoLinearLayerHasNeither) {
  const World w("opt-gelu", Grouping::tensor, {"fc1", "layer_norm", "embed_tokens"});
  const WindowProxies got = w.proxies(0, 0);
  for (int64_t k = 0; k < w.named.count(); ++k) {
    const bool linear = w.named.names[static_cast<size_t>(k)].find("fc1") != std::string::npos;
    EXPECT_EQ(std::isfinite(got.fisher[k].item<double>()), linear) << w.named.names[static_cast<size_t>(k)];
    EXPECT_EQ(std::isfinite(got.output_error[k].item<double>()), linear);
    EXPECT_TRUE(std::isfinite(got.diagonal[k].item<double>()));
  }
}

/// H and G of one layer's matrix from products with unit directions, then the mean and the variance of the samples.
TEST(Rank, DiagonalsAreUnbiasedWithTheStatedVariance) {
  const World w("llama-gqa", Grouping::layer, {"layers.1.self_attn.k_proj", "layers.0.mlp.up_proj"});
  ASSERT_EQ(w.named.count(), 2);
  constexpr int64_t samples = 400;
  std::vector<Tensor> diagonal, gauss_newton;
  for (int64_t m = 0; m < samples; ++m) {
    const WindowProxies got = w.proxies(1, m);
    diagonal.push_back(got.diagonal), gauss_newton.push_back(got.gauss_newton);
  }
  for (int64_t k = 0; k < 2; ++k) {
    const Move& move = w.named.moves[static_cast<size_t>(k)];
    Selection whole;
    whole.add_whole(move.parameter, move.values.sizes());
    const Tape tape = run_primal(w.program, w.parameters, whole, w.tape.tokens, at::kDouble);
    const TangentPass pass(w.program, w.parameters, whole, tape);
    const Tensor d = move.values.to(at::kDouble).flatten();
    for (const auto& [kind, all] :
         {std::pair{Curvature::hessian, &diagonal}, {Curvature::gauss_newton, &gauss_newton}}) {
      const Tensor H = pass.product(Directions::units(whole, 0, whole.size(), at::kDouble), 1, kind);
      const Tensor A = d.unsqueeze(1) * H * d / 2;
      const double mean = A.diagonal().sum().item<double>();
      const double variance = 2 * (A.square().sum() - A.diagonal().square().sum()).item<double>();
      const Tensor z = at::stack(*all).select(1, k);
      // Four standard errors of the mean; the variance of m samples is known to sqrt(2 kurtosis / m): 0.3 is four of
      // sqrt(2 / 400) and room for a kurtosis of 2 in excess.
      EXPECT_NEAR(z.mean().item<double>(), mean, 4 * std::sqrt(variance / samples)) << w.named.names[k];
      EXPECT_NEAR(z.var().item<double>() / variance, 1, 0.4) << w.named.names[k];
    }
  }
}

TEST(Rank, ColumnsOfARun) {
  const World w("opt-pre", Grouping::layer, {"proj", "fc"});
  QuadraticOptions options;
  options.precision = at::kDouble;
  options.actual_each = options.rank = true;
  const QuadraticResult r = compute_quadratic(w.model, w.named, w.windows, options);
  std::vector<std::string> names;
  for (const RankColumn& c : r.ranking) names.push_back(c.name);
  EXPECT_EQ(names, (std::vector<std::string>{"actual", "predicted", "diagonal", "gauss_newton", "fisher",
                                             "output_error", "weight_error"}));
  const Tokens& tokens = w.tape.tokens;
  const Tensor base = run_forward(w.program, w.parameters, tokens, at::kDouble);
  for (int64_t k = 0; k < w.named.count(); ++k) {
    std::vector<std::pair<int, Tensor>> values;
    for (const Move& move : w.named.moves)
      if (move.direction == k)
        values.emplace_back(move.parameter, w.parameters.stored(move.parameter).to(at::kDouble) + move.values);
    const Tensor loss = run_forward(w.program, w.parameters.with(values), tokens, at::kDouble);
    // Losses of 3 to 4 nats in fp64, differences of 1e-4 or more.
    EXPECT_LT(error(r.ranking[0].values.select(1, k), loss - base), 1e-9) << k;
  }
  EXPECT_LT(error(r.ranking[0].mean(), r.actual_each->mean), 1e-13);
  EXPECT_LT(error(r.ranking[0].standard_error(), r.actual_each->standard_error), 1e-9);
  EXPECT_LT(error(r.ranking[1].mean(), r.predicted_each.mean), 1e-13);
  for (int64_t s = 0; s < 3; ++s) {
    const WindowProxies got = w.proxies(s, w.windows.index[static_cast<size_t>(s)]);
    EXPECT_LT(error(r.ranking[2].values[s], got.diagonal), 1e-10);
    EXPECT_LT(error(r.ranking[3].values[s], got.gauss_newton), 1e-10);
    EXPECT_LT(error(r.ranking[4].values[s], got.fisher), 1e-10);
    EXPECT_LT(error(r.ranking[5].values[s], got.output_error), 1e-10);
  }
  const double norm = w.named.norms[1];
  EXPECT_NEAR(r.ranking[6].values[0][1].item<double>(), norm * norm, 1e-14);
}

TEST(Rank, RefusesWhatCannotBeRanked) {
  const World w("opt-pre", Grouping::model, {"fc1"});
  QuadraticOptions options;
  options.rank = options.actual_each = true;
  EXPECT_THROW(plan_quadratic(w.model, w.named, w.windows, options), std::invalid_argument);
  const World two("opt-pre", Grouping::layer, {"fc1"});
  options.actual_each = false;
  EXPECT_THROW(plan_quadratic(two.model, two.named, two.windows, options), std::invalid_argument);
  EXPECT_THROW(compute_quadratic(two.model, two.named, two.windows, options), std::invalid_argument);
  options.actual_each = true;
  EXPECT_NO_THROW(plan_quadratic(two.model, two.named, two.windows, options));
}

}  // namespace
}  // namespace hesper::test
