// The engine in fp64 against the golden files (transformers, double backward) and against the complex-step twin.
//
// Tolerance: fp64 sums of some thousand terms on models of condition a few hundred at most. The worst error measured is
// 1.4e-14; 1e-12 leaves room for another order of summation.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "checkpoint/checkpoint.h"
#include "hessian/autograd_engine.h"
#include "model/build_program.h"
#include "model/weights.h"
#include "oracle/golden.h"
#include "tangent/tangent_pass.h"

namespace hesper::oracle {
namespace {

using Complex = std::complex<double>;
constexpr double kTolerance = 1e-12;
constexpr double kStep = 1e-25;

// A golden folder read by the engine's own readers.
class Engine : public testing::TestWithParam<std::string> {
 protected:
  static hesper::Weights read(const std::string& folder) {
    const Checkpoint checkpoint = Checkpoint::open(folder);
    return load_weights(checkpoint, parse_config(checkpoint), at::kDouble);
  }
  void add(Selection& selection, const std::string& name, const std::vector<int64_t>& flat) const {
    const int p = program_.parameter(name);
    ASSERT_GE(p, 0) << name;
    selection.add(p, weights_.values[p].sizes(), at::tensor(flat, at::kLong));
  }
  Selection select(const std::vector<std::pair<std::string, std::vector<int64_t>>>& entries) const {
    Selection selection;
    for (const auto& [name, indices] : entries) add(selection, name, indices);
    return selection;
  }
  Selection everything() const {
    Selection selection;
    for (int p = 0; p < parameters_.count(); ++p) selection.add_whole(p, weights_.values[p].sizes());
    return selection;
  }
  Tape primal(const Selection& selection) const {
    return run_primal(program_, parameters_, selection, tokens_, at::kDouble);
  }
  int64_t windows() const { return golden_.ids.size(0); }

  // V H, V G or V R of the mean over windows
  at::Tensor product(const Selection& selection, const Tape& tape, const Directions& v, Curvature kind,
                     bool recompute = false) const {
    const TangentPass pass(program_, parameters_, selection, tape);
    at::Tensor sum = at::zeros({v.count(), selection.size()}, at::kDouble);
    for (int64_t s = 0; s < windows(); ++s) sum += pass.product(v, s, kind, recompute);
    return sum / double(windows());
  }
  TangentPass::Forms forms(const Selection& selection, const Tape& tape, const Directions& v) const {
    const TangentPass pass(program_, parameters_, selection, tape);
    at::Tensor gauss_newton = at::zeros({v.count(), v.count()}, at::kDouble), residual = at::zeros_like(gauss_newton);
    for (int64_t s = 0; s < windows(); ++s) {
      const auto one = pass.second_order(v, s);
      gauss_newton += one.gauss_newton;
      residual += one.residual;
    }
    return {gauss_newton / double(windows()), residual / double(windows())};
  }

  // Gradient of the twin at theta + i h V_k, read at the selection, times 1/h: row k of V H
  at::Tensor complex_step(const Selection& selection, const at::Tensor& v) const {
    oracle::Weights<Complex> theta;
    for (const auto& [name, value] : golden_.weights) theta[name].assign(value.begin(), value.end());
    const auto ids = rows_of(golden_.ids), labels = rows_of(golden_.labels);
    std::vector<double> result;
    for (int64_t k = 0; k < v.size(0); ++k) {
      auto moved = theta;
      each_entry(selection, [&](const std::string& name, int64_t i, int64_t row) {
        moved.at(name).at(i) += Complex(0, kStep * v[k][row].item<double>());
      });
      const auto gradient = run_twin(golden_.config, moved, ids, labels).gradient;
      each_entry(selection, [&](const std::string& name, int64_t i, int64_t) {
        result.push_back(gradient.at(name).at(i).imag() / kStep);
      });
    }
    return at::tensor(result, at::kDouble).view({v.size(0), selection.size()});
  }
  template <class F>
  void each_entry(const Selection& selection, F&& f) const {
    int64_t row = 0;
    for (const auto& part : selection.parts()) {
      const at::Tensor flat = part.entries().contiguous();
      for (int64_t i = 0; i < part.size; ++i) {
        f(program_.parameter_names()[part.parameter], flat.const_data_ptr<int64_t>()[i], row++);
      }
    }
  }
  static at::Tensor random(int64_t rows, int64_t columns) {
    return at::randn({rows, columns}, at::detail::createCPUGenerator(5), at::kDouble);
  }

  Golden golden_ = read_golden(GetParam());
  hesper::Weights weights_ = read(golden_.folder);
  hesper::Program program_ = build_program(weights_.config, golden_.ids.size(1));
  Parameters parameters_{weights_.values, at::kDouble, at::kCPU};
  Tokens tokens_ = make_tokens(golden_.ids, golden_.labels, at::kCPU);
};

TEST_P(Engine, LossAndGradient) {
  EXPECT_LE(relative_error(run_forward(program_, parameters_, tokens_, at::kDouble), golden_.window_losses),
            kTolerance);
  for (const auto& golden : golden_.selections) {
    const Tape tape = primal(select(golden.entries));
    EXPECT_LE(relative_error(tape.losses, golden_.window_losses), kTolerance) << golden.name;
    EXPECT_LE(relative_error(tape.gradient.mean(0), golden.gradient), kTolerance) << golden.name;
  }
}

TEST_P(Engine, TwoPassProducts) {
  for (const auto& golden : golden_.selections) {
    const Selection selection = select(golden.entries);
    const Tape tape = primal(selection);
    const int64_t n = selection.size();
    const Directions units = Directions::units(selection, 0, n, at::kDouble);
    const at::Tensor H = product(selection, tape, units, Curvature::hessian);
    EXPECT_TRUE(at::equal(product(selection, tape, units, Curvature::hessian, true), H)) << golden.name;
    const at::Tensor G = product(selection, tape, units, Curvature::gauss_newton);
    EXPECT_LE(relative_error(H, golden.hessian), kTolerance) << golden.name;
    EXPECT_LE(relative_error(G, golden.gauss_newton), kTolerance) << golden.name;
    // R = H - G can be zero (a head's weights): measured against H
    const at::Tensor R = product(selection, tape, units, Curvature::residual);
    EXPECT_LE((R + G - H).norm().item<double>(), kTolerance * H.norm().item<double>()) << golden.name;
    const at::Tensor v = random(3, n);
    const Directions dense = Directions::dense(selection, v, at::kDouble);
    EXPECT_LE(relative_error(product(selection, tape, dense, Curvature::hessian), v.mm(golden.hessian)), kTolerance)
        << golden.name;
    EXPECT_LE(relative_error(product(selection, tape, dense, Curvature::gauss_newton), v.mm(golden.gauss_newton)),
              kTolerance)
        << golden.name;
  }
}

TEST_P(Engine, GramBlocks) {
  for (const auto& golden : golden_.selections) {
    const Selection selection = select(golden.entries);
    const Tape tape = primal(selection);
    const int64_t n = selection.size();
    const auto block = forms(selection, tape, Directions::units(selection, 0, n, at::kDouble));
    EXPECT_LE(relative_error(block.gauss_newton, golden.gauss_newton), kTolerance) << golden.name;
    EXPECT_LE(relative_error(block.gauss_newton + block.residual, golden.hessian), kTolerance) << golden.name;
    const auto part = forms(selection, tape, Directions::units(selection, n / 3, n, at::kDouble));
    const at::Tensor corner = golden.hessian.slice(0, n / 3).slice(1, n / 3);
    EXPECT_LE(relative_error(part.gauss_newton + part.residual, corner), kTolerance) << golden.name;
    const at::Tensor v = random(3, n);
    const auto dense = forms(selection, tape, Directions::dense(selection, v, at::kDouble));
    EXPECT_LE(relative_error(dense.gauss_newton + dense.residual, v.mm(golden.hessian).mm(v.t())), kTolerance)
        << golden.name;
  }
}

TEST_P(Engine, AutogradEngine) {
  for (const auto& golden : golden_.selections) {
    const Selection selection = select(golden.entries);
    const hesper::AutogradEngine engine(program_, parameters_, selection, tokens_, at::kDouble);
    const double b = double(windows());
    EXPECT_LE(relative_error(engine.losses().detach(), golden_.window_losses), kTolerance) << golden.name;
    EXPECT_LE(relative_error(engine.gradient() / b, golden.gradient), kTolerance) << golden.name;
    EXPECT_LE(relative_error(engine.columns(0, selection.size()) / b, golden.hessian), kTolerance) << golden.name;
  }
}

// Random directions over every parameter of the model at once.
TEST_P(Engine, ComplexStepOverAllParameters) {
  const Selection selection = everything();
  ASSERT_EQ(selection.parts().size(), golden_.weights.size());
  const Tape tape = primal(selection);
  const auto plain = run_twin(golden_.config, golden_.weights, rows_of(golden_.ids), rows_of(golden_.labels));
  std::vector<double> gradient;
  each_entry(selection,
             [&](const std::string& name, int64_t i, int64_t) { gradient.push_back(plain.gradient.at(name).at(i)); });
  EXPECT_LE(relative_error(tape.gradient.mean(0), at::tensor(gradient, at::kDouble)), kTolerance);

  const at::Tensor v = random(4, selection.size());
  const at::Tensor expected = complex_step(selection, v);
  const Directions directions = Directions::dense(selection, v, at::kDouble);
  EXPECT_LE(relative_error(product(selection, tape, directions, Curvature::hessian), expected), kTolerance);
  const auto block = forms(selection, tape, directions);
  EXPECT_LE(relative_error(block.gauss_newton + block.residual, expected.mm(v.t())), kTolerance);
}

// So many directions that token-local segments run in cuts of two tokens (512 rows a cut on a CPU).
TEST_P(Engine, ManyDirectionsInCuts) {
  std::mt19937_64 generator(11);
  std::vector<std::pair<std::string, std::vector<int64_t>>> entries;
  for (const auto& [name, value] : golden_.weights) {
    std::vector<int64_t> indices(value.size());
    std::iota(indices.begin(), indices.end(), 0);
    std::shuffle(indices.begin(), indices.end(), generator);
    indices.resize(std::min<size_t>(indices.size(), 200 / golden_.weights.size() + 1));
    entries.emplace_back(name, indices);
  }
  const Selection selection = select(entries);
  const int64_t n = selection.size();
  ASSERT_GT(n, 170);
  const Tape tape = primal(selection);
  const at::Tensor expected = complex_step(selection, at::eye(n, at::kDouble));
  const Directions units = Directions::units(selection, 0, n, at::kDouble);
  EXPECT_LE(relative_error(product(selection, tape, units, Curvature::hessian), expected), kTolerance);
  const auto block = forms(selection, tape, units);
  EXPECT_LE(relative_error(block.gauss_newton + block.residual, expected), kTolerance);
}

std::string test_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Golden, Engine, testing::ValuesIn(golden_names()), test_name);

}  // namespace
}  // namespace hesper::oracle
