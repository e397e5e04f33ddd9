// Bars that mean what they say: over repeated runs on a layer whose exact diagonal is known the truth lies within the
// 68% and the 95% bars as often as it should.
#include <gtest/gtest.h>

#include <cmath>

#include "hessian/deflation.h"
#include "run/diag.h"
#include "run/golden_run.h"

namespace hesper {
namespace {

/// Two-sided quantiles of Student's t: with 9 degrees of freedom (10 groups), and of the normal.
struct Quantiles {
  double q68, q95;
};
constexpr Quantiles kNormal{1.0, 1.95996}, kNine{1.0593, 2.26216};

/// Hits of `runs` runs, each with chance `p`: within 4.4 standard deviations, 1e-5 two-sided, so that the 110
/// comparisons of this file together have 0.1%.
void expect_binomial(int64_t hits, int64_t runs, double p, const std::string& what) {
  const double n = static_cast<double>(runs), away = (static_cast<double>(hits) - n * p) / std::sqrt(n * p * (1 - p));
  EXPECT_LE(std::abs(away), 4.4) << what << ": " << hits << " of " << runs << ", " << p << " expected";
}

/// How often |error| <= quantile x bar, entry by entry.
class Coverage {
 public:
  Coverage(std::string what, Quantiles quantiles, int64_t n)
      : what_(std::move(what)), quantiles_(quantiles), in68_(at::zeros({n})), in95_(at::zeros({n})) {}
  void add(const at::Tensor& error, const at::Tensor& bar) {
    ++runs_;
    in68_ += error.abs().le(bar * quantiles_.q68);
    in95_ += error.abs().le(bar * quantiles_.q95);
  }
  void expect_calibrated() const {
    for (int64_t i = 0; i < in68_.numel(); ++i) {
      expect_binomial(in68_[i].item<int64_t>(), runs_, 0.6827, fmt::format("{} {} 68%", what_, i));
      expect_binomial(in95_[i].item<int64_t>(), runs_, 0.95, fmt::format("{} {} 95%", what_, i));
    }
  }

 private:
  std::string what_;
  Quantiles quantiles_;
  int64_t runs_ = 0;
  at::Tensor in68_, in95_;
};

/// A corpus of 40 windows of random ids and the exact Hessian of each, 3 rows of q_proj: indefinite.
struct Corpus {
  static constexpr int64_t windows = 40;
  at::Tensor hessians;  // (40, n, n) fp64
  at::Tensor diagonals() const { return hessians.diagonal(0, 1, 2); }
};

Corpus make_corpus() {
  at::manual_seed(12);
  const Model model = load_model(test::golden_folder("opt-pre"));
  const Windows all = test::windows_of(at::randint(model.config().vocab, {Corpus::windows, 10}, at::kLong));
  SelectionRequest request;
  request.rows = IndexRange{0, 3};
  const ResolvedSelection selection = test::select(model, request);
  ExactOptions options;
  options.precision = at::kDouble;
  std::vector<at::Tensor> hessians;
  for (int64_t s = 0; s < Corpus::windows; ++s) {
    const Windows one = test::windows_of(all.ids.narrow(0, s, 1));
    hessians.push_back(compute_exact(model, selection.selection, one, options).blocks[0].matrix);
  }
  return {at::stack(hessians)};
}

/// Sums beside entries, as a run has them: two entries, a row, the trace.
at::Tensor watched(const at::Tensor& z) {
  return at::stack({z.select(-1, 0), z.select(-1, 20), z.narrow(-1, 16, 16).sum(-1), z.sum(-1)}, -1);
}

/// Nine vectors of the Krylov space of the windows' mean.
Deflation deflation_of(const at::Tensor& hessians, uint64_t seed) {
  const int64_t n = hessians.size(1);
  Selection selection;
  selection.add_whole(0, {n});
  const at::Tensor mean = hessians.mean(0);
  Deflation out(9, n, at::kDouble);
  at::Tensor next = rademacher(selection, seed, 0, basis_probes, 3, at::kDouble).mm(mean);
  while (out.room() > 0) {
    const at::Tensor block = out.next_block(next);
    next = out.known(block, 0, block.mm(mean)).rest;
    out.join(block);
  }
  return out;
}

// 300 runs: b = 30 windows drawn anew with replacement, m probes each, of H_s or of P H_s P beside its known part.
class Bars : public testing::TestWithParam<bool> {};

TEST_P(Bars, ProbeDataAndTotal) {
  const bool deflated = GetParam();
  const Corpus corpus = make_corpus();
  at::manual_seed(13);  // of the draws below, whatever the runs above took
  const at::Tensor diagonals = corpus.diagonals();
  ASSERT_LT(diagonals.mean(0).min().item<double>(), 0);  // indefinite
  ASSERT_GT(diagonals.mean(0).max().item<double>(), 0);
  const at::Tensor truth = watched(diagonals.mean(0));
  constexpr int64_t b = 30;
  const int64_t n = diagonals.size(1);
  Selection selection;
  selection.add_whole(0, {n});
  // Few probes: the probe bar matters. Many: the data bar, which is a difference, is resolved.
  for (const int64_t m : {8, 256}) {
    Coverage probe(fmt::format("probe bar, {} probes, quantity", m), kNormal, 4);
    Coverage data("data bar, quantity", kNine, 4), total(fmt::format("total bar, {} probes, quantity", m), kNine, 4);
    double squares = 0, bars_squared = 0;
    const int runs = m == 8 ? 300 : 120;
    for (int run = 0; run < runs; ++run) {
      const at::Tensor drawn = at::randint(Corpus::windows, {b}, at::kLong);
      DiagonalMoments moments(4, b);
      const at::Tensor hessians = corpus.hessians.index_select(0, drawn);
      const Deflation basis =
          deflated ? deflation_of(hessians, static_cast<uint64_t>(run)) : Deflation(0, n, at::kDouble);
      for (int64_t s = 0; s < b; ++s) {
        const at::Tensor v = rademacher(selection, static_cast<uint64_t>(run), s, 0, m, at::kDouble);
        const at::Tensor rest = basis.project(basis.project(hessians[s]).t());  // P H P
        moments.begin_visit(s);
        moments.add(watched(v * v.mm(rest)));
        if (deflated) moments.shift(s, watched((hessians[s] - rest).diagonal()));
      }
      const DiagonalBars bars = moments.bars();
      const EntryErrors errors = entry_errors(bars);
      const at::Tensor of_windows = watched(diagonals.index_select(0, drawn).mean(0));
      probe.add(bars.mean - of_windows, errors.probe);
      total.add(bars.mean - truth, errors.total);
      data.add(of_windows - truth, errors.data);
      squares += (bars.mean - of_windows).square().sum().item<double>();
      bars_squared += bars.probe.sum().item<double>();
    }
    probe.expect_calibrated();
    total.expect_calibrated();
    if (m > 8) data.expect_calibrated();
    // The relative bar as a whole: mean square error over mean square bar; few quantities carry it, so within 25%.
    EXPECT_NEAR(squares / bars_squared, 1, 0.25);
  }
}

INSTANTIATE_TEST_SUITE_P(Calibration, Bars, testing::Bool(),
                         [](const auto& deflated) { return deflated.param ? "Deflated" : "Plain"; });

// The whole path, 120 runs of a layer: entries and the trace against their probe bars.
class Runs : public testing::TestWithParam<DiagMethod> {};

TEST_P(Runs, OfALayer) {
  const Model model = load_model(test::golden_folder("opt-pre"));
  const Windows windows = test::golden_windows("opt-pre");
  const ResolvedSelection selection = test::select(model, SelectionRequest{});
  const std::vector<UnitSums> sums = unit_sums(model, selection, 128);
  DiagOptions options;
  options.precision = at::kDouble;
  const DiagonalResult exact = compute_exact_diag(model, selection, sums, windows, options);
  options.method = GetParam();
  options.probes = options.method == DiagMethod::krylov ? 48 : 16;  // some 16 are left to its probes
  Coverage entries("entry", kNormal, 4), trace("trace", kNormal, 1);
  at::Tensor mean = at::zeros_like(exact.tensors[0].entries.mean), variance = at::zeros_like(mean);
  constexpr int runs = 120;
  for (int run = 0; run < runs; ++run) {
    options.seed = static_cast<uint64_t>(run);
    const TensorDiagonal d = compute_diag(model, selection, sums, windows, options).tensors[0];
    const auto some = [](const at::Tensor& t) { return t.view({4, -1}).select(1, 9); };
    entries.add(some(d.entries.mean - exact.tensors[0].entries.mean), some(d.entries.probe.sqrt()));
    trace.add((d.sums.mean - exact.tensors[0].sums.mean).slice(0, 0, 1), d.sums.probe.slice(0, 0, 1).sqrt());
    mean += d.entries.mean / runs;
    variance += d.entries.probe / (runs * runs);
  }
  entries.expect_calibrated();
  trace.expect_calibrated();
  // Unbiased: 256 entries, the largest deviation of so many normals stays below 4.5 standard errors.
  EXPECT_LE(((mean - exact.tensors[0].entries.mean) / variance.sqrt()).abs().max().item<double>(), 4.5);
}

INSTANTIATE_TEST_SUITE_P(Calibration, Runs,
                         testing::Values(DiagMethod::hutchinson, DiagMethod::split, DiagMethod::krylov),
                         [](const auto& method) { return to_string(method.param); });

}  // namespace
}  // namespace hesper
