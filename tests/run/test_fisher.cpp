// The five Fisher diagonals of golden models against what defines them, by LibTorch's autograd, in fp64.
#include "run/fisher.h"

#include <gtest/gtest.h>

#include "hessian/autograd_engine.h"
#include "hessian/split_samples.h"
#include "model/build_program.h"
#include "run/diag.h"
#include "run/golden_run.h"

namespace hesper {
namespace {

using at::Tensor;
using test::golden_windows;
using test::select;

// fp64 sums of some thousand terms, as in tests/oracle.
constexpr double kTolerance = 1e-12;
double gap(const Tensor& a, const Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }

class Fisher : public testing::TestWithParam<const char*> {
 protected:
  SelectionRequest request() const {
    SelectionRequest r;
    r.layers = {"self_attn.v_proj", GetParam()[0] == 'o' ? "fc2" : "mlp.down_proj"};
    r.blocks = "0,1";
    return r;
  }
  static FisherOptions of(FisherKind kind, int64_t probes = 8) {
    FisherOptions options;
    options.kind = kind;
    options.precision = at::kDouble;
    options.probes = probes;
    return options;
  }
  FisherResult run(const FisherOptions& options) const {
    return compute_fisher(model, selection, unit_sums(model, selection, 128), windows, options);
  }
  Tensor mean(const FisherOptions& options) const {
    Tensors parts;
    for (const TensorDiagonal& d : run(options).diagonal.tensors) parts.push_back(d.entries.mean);
    return at::cat(parts);
  }
  /// Gradient (n) of the mean loss of windows [first, first + count), labels as given.
  Tensor gradient(int64_t first, int64_t count, const Tensor& labels) const {
    const Parameters parameters(model.weights.values, at::kDouble, at::kCPU);
    const Tokens tokens = make_tokens(windows.ids.narrow(0, first, count), labels, at::kCPU);
    return AutogradEngine(program, parameters, selection.selection, tokens, at::kDouble).gradient() /
           static_cast<double>(count);
  }
  Tensor mean_square(int64_t batch) const {
    Tensors squares;
    for (int64_t s = 0; s < b(); s += batch) {
      const int64_t count = std::min(batch, b() - s);
      squares.push_back(gradient(s, count, windows.labels.narrow(0, s, count)).square());
    }
    return at::stack(squares).mean(0);
  }
  /// (1/b) sum_s (1/N) sum_t (dl_t/dw)^2, a gradient a token.
  Tensor per_token() const {
    Tensor sum = at::zeros({selection.selection.size()}, at::kDouble);
    const int64_t length = windows.ids.size(1);
    for (int64_t s = 0; s < b(); ++s)
      for (int64_t t = 1; t < length; ++t) {
        Tensor labels = at::full({1, length}, -100, at::kLong);
        labels[0][t] = windows.labels[s][t];
        sum += gradient(s, 1, labels).square();
      }
    return sum / static_cast<double>(b() * (length - 1));
  }
  Tensor dense_diagonal(Curvature kind, const Selection& some, const Windows& of) const {
    ExactOptions options;
    options.precision = at::kDouble;
    options.curvatures = {kind};
    return compute_exact(model, some, of, options).blocks[0].matrix.diagonal().clone();
  }
  void expect_within_bars(FisherOptions options, const Tensor& truth) const;
  int64_t b() const { return windows.ids.size(0); }

  const Model model = load_model(test::golden_folder(GetParam()));
  const Windows windows = golden_windows(GetParam());
  const hesper::Program program = build_program(model.config(), windows.ids.size(1));
  const ResolvedSelection selection = select(model, request());
};

TEST_P(Fisher, SquaredGradients) {
  EXPECT_LE(gap(mean(of(FisherKind::sequence)), mean_square(1)), kTolerance);
  for (const int64_t batch : {1, 2, 3}) {
    FisherOptions options = of(FisherKind::batch);
    options.batch = batch;
    EXPECT_LE(gap(mean(options), mean_square(batch)), kTolerance) << batch;
    options.kind = FisherKind::sequence;
    EXPECT_LE(gap(mean(options), mean_square(1)), kTolerance) << batch;
  }
}

/// Estimates of `seeds` seeds against the truth (n), in their own probe bars. An entry that one token alone reaches has
/// no noise at all, which counts as agreement to rounding.
void Fisher::expect_within_bars(FisherOptions options, const Tensor& truth) const {
  constexpr int seeds = 16;
  const Tensor rounding = truth.max() * 1e-12;
  double squares = 0, count = 0;
  for (options.seed = 0; options.seed < seeds; ++options.seed) {
    const DiagonalResult result = run(options).diagonal;
    for (size_t i = 0; i < selection.tensors.size(); ++i) {
      const DiagonalBars& d = result.tensors[i].entries;
      const Tensor away = (d.mean - truth.slice(0, selection.tensors[i].begin, selection.tensors[i].end)).abs();
      const Tensor bar = d.probe.sqrt(), noisy = bar.gt(rounding);
      EXPECT_TRUE(away.le(rounding).logical_or(noisy).all().item<bool>());
      const Tensor in_bars = (away / bar).masked_select(noisy);
      squares += in_bars.square().sum().item<double>();
      count += in_bars.numel();
      // sqrt(2/m) of a window's samples bounds the factor's error, whatever the coupling.
      if (options.kind == FisherKind::gauss_newton && options.draw == AdjointStart::Kind::factor) {
        EXPECT_LT(relative_bars(d).probe.value, std::sqrt(2.0 / static_cast<double>(options.probes)));
      }
    }
  }
  // Mean of squared normal deviations: 1. Entries share their signs; with 20 independent ones a seed (9 tokens make 36
  // pairs of signs a window) its standard deviation is sqrt(2/320) = 0.08.
  EXPECT_GT(squares / count, 0.7) << to_string(options.kind);
  EXPECT_LT(squares / count, 1.3) << to_string(options.kind);
}

TEST_P(Fisher, PerToken) { expect_within_bars(of(FisherKind::token, 100), per_token()); }

TEST_P(Fisher, GaussNewtonByEitherDraw) {
  DiagOptions exact;
  exact.precision = at::kDouble;
  exact.curvature = Curvature::gauss_newton;
  Tensors parts;
  for (const TensorDiagonal& d :
       compute_exact_diag(model, selection, unit_sums(model, selection, 128), windows, exact).tensors)
    parts.push_back(d.entries.mean);
  for (const AdjointStart::Kind draw : {AdjointStart::Kind::factor, AdjointStart::Kind::labels}) {
    FisherOptions options = of(FisherKind::gauss_newton, 100);
    options.draw = draw;
    expect_within_bars(options, at::cat(parts));
  }
}

TEST_P(Fisher, InputGram) {
  const FisherResult result = run(of(FisherKind::input_gram));
  const Parameters parameters(model.weights.values, at::kDouble, at::kCPU);
  for (size_t i = 0; i < selection.tensors.size(); ++i) {
    const int p = selection.tensors[i].parameter;
    const Tape tape = run_primal(program, parameters, selection.selection,
                                 make_tokens(windows.ids, windows.labels, at::kCPU), at::kDouble);
    Tensor x;
    for (size_t op = 0; op < tape.ops.size(); ++op)
      if (program.ops()[op]->name() == "linear" && program.ops()[op]->parameters[0] == p) x = tape.ops[op][0];
    const Tensor gram = x.t().mm(x) / static_cast<double>(x.size(0));
    EXPECT_LE(gap(result.grams[i], gram), kTolerance);
    const Tensor rows = gram.diagonal().expand(selection.tensors[i].shape).flatten();
    EXPECT_LE(gap(result.diagonal.tensors[i].entries.mean, rows), kTolerance);
  }
}

// Probes, batches and directions are dealt in any way: fp64 rounding apart the same.
TEST_P(Fisher, AnySplitGivesTheSame) {
  for (const FisherKind kind : {FisherKind::token, FisherKind::gauss_newton}) {
    FisherOptions options = of(kind, 7);
    const Tensor one = mean(options);
    for (const auto& [directions, batch] : {std::pair{1, 1}, {3, 2}, {7, 3}}) {
      options.directions = directions, options.batch = batch;
      EXPECT_LE(gap(mean(options), one), kTolerance) << directions << " " << batch;
    }
    options.seed = 1;
    EXPECT_GT(gap(mean(options), one), 1e-3);
  }
}

TEST_P(Fisher, SinglePrecisionMeasuresItsError) {
  for (const FisherKind kind :
       {FisherKind::batch, FisherKind::sequence, FisherKind::token, FisherKind::gauss_newton, FisherKind::input_gram}) {
    FisherOptions options = of(kind);
    options.precision = at::kFloat;
    options.batch = 2;
    const DiagonalResult result = run(options).diagonal;
    ASSERT_TRUE(result.precision_error) << to_string(kind);
    EXPECT_LE(*result.precision_error, 2e-5) << to_string(kind);  // fp32 rounds to 6e-8; some hundred sums, squared
  }
}

TEST_P(Fisher, DataBarsOfExactSamples) {
  const TensorDiagonal d = run(of(FisherKind::sequence)).diagonal.tensors[0];
  const Tensor z = at::stack({gradient(0, 1, windows.labels.narrow(0, 0, 1)).square(),
                              gradient(1, 1, windows.labels.narrow(0, 1, 1)).square(),
                              gradient(2, 1, windows.labels.narrow(0, 2, 1)).square()})
                       .slice(1, 0, d.entries.mean.numel());
  ASSERT_EQ(b(), 3);
  EXPECT_EQ(d.entries.probe.abs().max().item<double>(), 0);
  EXPECT_LE(gap(d.entries.total, z.var(0) / 3), kTolerance);
}

// The two parts of a split diagonal add up to diag H within their bars, both signs of H included.
TEST_P(Fisher, SplitAddsUpToTheHessian) {
  const Parameters parameters(model.weights.values, at::kDouble, at::kCPU);
  SelectionRequest row = request();
  row.rows = IndexRange{0, 1};
  const Selection some = select(model, row).selection;
  const Tape tape =
      run_primal(program, parameters, some,
                 make_tokens(windows.ids.narrow(0, 0, 1), windows.labels.narrow(0, 0, 1), at::kCPU), at::kDouble);
  const TangentPass pass(program, parameters, some, tape);
  const AdjointStart start{AdjointStart::Kind::factor, 3, 0, 0, 1500};
  const Tensor g = gauss_newton_samples(pass, start, 0),
               r = residual_samples(pass, some, start, 0, at::kDouble, at::kCPU);
  const Windows first{windows.ids.narrow(0, 0, 1), windows.labels.narrow(0, 0, 1), {0}, 1};
  const Tensor truth = dense_diagonal(Curvature::hessian, some, first);
  const Tensor variance = (g.var(0) + r.var(0)) / 1500;
  // 5 standard errors of up to 40 entries: by chance once in 40,000; weights without influence have neither.
  const Tensor away = ((g + r).mean(0) - truth).abs();
  EXPECT_TRUE(away.le(5 * variance.sqrt() + 1e-12 * truth.abs().max()).all().item<bool>());
  EXPECT_LT(((g + r).mean(0) - truth).square().sum().item<double>(), 3 * variance.sum().item<double>());
  EXPECT_GT(truth.lt(0).sum().item<int64_t>(), 0);
}

TEST_P(Fisher, RefusesInputsOfWhatHasNone) {
  SelectionRequest norm;
  norm.layers = {"*norm.weight"};
  const ResolvedSelection some = select(model, norm);
  const FisherOptions options = of(FisherKind::input_gram);
  EXPECT_THROW(plan_fisher(model, some, unit_sums(model, some, 128), windows, options), std::invalid_argument);
}

INSTANTIATE_TEST_SUITE_P(Golden, Fisher, testing::Values("opt-pre", "llama-gqa"),
                         [](const auto& info) { return std::string(info.param) == "opt-pre" ? "Opt" : "Llama"; });

}  // namespace
}  // namespace hesper
