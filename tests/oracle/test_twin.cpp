// The complex-step twin against the golden files: the oracle itself is checked before it judges the engine.
#include <gtest/gtest.h>

#include <filesystem>
#include <random>
#include <set>

#include "oracle/golden.h"
#include "oracle/twin.h"

namespace hesper::oracle {
namespace {

using Complex = std::complex<double>;
constexpr double kStep = 1e-25;  // its square is far below a rounding of 1

// One golden folder; loss and gradient in double, and the twin at theta + i h e for one entry e at a time.
class Twin : public testing::TestWithParam<std::string> {
 protected:
  TwinResult<Complex> at_entry(const std::string& tensor, int64_t index) const {
    Weights<Complex> moved = complex_weights();
    moved.at(tensor).at(index) += Complex(0, kStep);
    return run_twin(golden_.config, moved, ids_, labels_);
  }
  Weights<Complex> complex_weights() const {
    Weights<Complex> result;
    for (const auto& [name, value] : golden_.weights) result[name].assign(value.begin(), value.end());
    return result;
  }
  static at::Tensor tensor(const std::vector<double>& values) { return at::tensor(values, at::kDouble); }

  Golden golden_ = read_golden(GetParam());
  std::vector<std::vector<int64_t>> ids_ = rows_of(golden_.ids);
  std::vector<std::vector<int64_t>> labels_ = rows_of(golden_.labels);
};

// fp64 roundings of some thousand terms: 1e-12 leaves a factor of about 100.
TEST_P(Twin, LossLogitsAndGradientOfTheGoldenFile) {
  const auto result = run_twin(golden_.config, golden_.weights, ids_, labels_);
  EXPECT_NEAR(result.loss, golden_.loss, 1e-12 * golden_.loss);
  EXPECT_LE(relative_error(tensor(result.window_losses), golden_.window_losses), 1e-12);
  EXPECT_LE(relative_error(tensor(result.logits[0]), golden_.logits.reshape({-1})), 1e-12);
  for (const auto& selection : golden_.selections) {
    std::vector<double> gradient;
    for (const auto& [name, indices] : selection.entries) {
      for (int64_t i : indices) gradient.push_back(result.gradient.at(name).at(i));
    }
    EXPECT_LE(relative_error(tensor(gradient), selection.gradient), 1e-12) << selection.name;
  }
}

TEST_P(Twin, ComplexStepGivesHessianAndGaussNewton) {
  const int64_t T = golden_.ids.size(1), V = golden_.logits.size(1);
  const auto plain = run_twin(golden_.config, golden_.weights, ids_, labels_);
  for (const auto& selection : golden_.selections) {
    std::vector<double> columns, tangents;
    int64_t n = 0;
    for (const auto& [name, indices] : selection.entries) {
      for (int64_t i : indices) {
        const auto moved = at_entry(name, i);
        for (const auto& [row_name, rows] : selection.entries) {
          for (int64_t r : rows) columns.push_back(moved.gradient.at(row_name).at(r).imag() / kStep);
        }
        for (const auto& z : moved.logits) {
          for (const Complex& word : z) tangents.push_back(word.imag() / kStep);
        }
        ++n;
      }
    }
    EXPECT_LE(relative_error(tensor(columns).view({n, n}).t(), selection.hessian), 1e-12) << selection.name;

    // J^T Lambda J, Lambda = (diag p - p p^T) / (counted tokens of the window) / b
    const at::Tensor J = tensor(tangents).view({n, -1, T, V});
    at::Tensor G = at::zeros({n, n}, at::kDouble);
    for (size_t s = 0; s < ids_.size(); ++s) {
      const at::Tensor p = tensor(plain.logits[s]).view({T, V}).softmax(-1);
      const double counted =
          double(std::count_if(labels_[s].begin() + 1, labels_[s].end(), [](int64_t l) { return l >= 0; }));
      for (int64_t t = 1; t < T; ++t) {
        if (labels_[s][t] < 0) continue;
        const at::Tensor Jt = J.select(1, int64_t(s)).select(1, t - 1), Jp = Jt.mv(p[t - 1]);
        G += ((Jt * p[t - 1]).mm(Jt.t()) - at::outer(Jp, Jp)) / counted / double(ids_.size());
      }
    }
    EXPECT_LE(relative_error(G, selection.gauss_newton), 1e-12) << selection.name;
  }
}

// Every adjoint against the forward pass it belongs to, over all parameters at once: Im loss(theta + i h v)/h = g.v
TEST_P(Twin, GradientIsTheComplexStepOfTheLoss) {
  const auto plain = run_twin(golden_.config, golden_.weights, ids_, labels_);
  std::mt19937_64 random(7);
  std::normal_distribution<double> normal;
  for (int probe = 0; probe < 4; ++probe) {
    Weights<Complex> moved = complex_weights();
    double expected = 0, size = 0;
    for (auto& [name, value] : moved) {
      for (size_t i = 0; i < value.size(); ++i) {
        const double v = normal(random), g = plain.gradient.at(name)[i];
        value[i] += Complex(0, kStep * v);
        expected += g * v;
        size += g * g;
      }
    }
    const double found = run_twin(golden_.config, moved, ids_, labels_).loss.imag() / kStep;
    EXPECT_NEAR(found, expected, 1e-12 * std::sqrt(size));
  }
}

// u.H v = v.H u for random directions over all parameters.
TEST_P(Twin, ComplexStepHessianIsSymmetric) {
  std::mt19937_64 random(8);
  std::normal_distribution<double> normal;
  Weights<double> u, v;
  for (const auto& [name, value] : golden_.weights) {
    for (size_t i = 0; i < value.size(); ++i) u[name].push_back(normal(random)), v[name].push_back(normal(random));
  }
  auto product = [&](const Weights<double>& direction) {
    Weights<Complex> moved = complex_weights();
    for (auto& [name, value] : moved) {
      for (size_t i = 0; i < value.size(); ++i) value[i] += Complex(0, kStep * direction.at(name)[i]);
    }
    return run_twin(golden_.config, moved, ids_, labels_).gradient;
  };
  const auto Hu = product(u), Hv = product(v);
  double uHv = 0, vHu = 0, size = 0;
  for (const auto& [name, value] : u) {
    for (size_t i = 0; i < value.size(); ++i) {
      uHv += value[i] * Hv.at(name)[i].imag() / kStep;
      vHu += v.at(name)[i] * Hu.at(name)[i].imag() / kStep;
      size += std::pow(Hv.at(name)[i].imag() / kStep, 2);
    }
  }
  EXPECT_NEAR(uHv, vHu, 1e-12 * std::sqrt(size));
}

std::string test_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Golden, Twin, testing::ValuesIn(golden_names()), test_name);

TEST(Golden, EveryFolderIsListed) {
  std::set<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(HESPER_SOURCE_DIR) + "/tests/golden")) {
    if (entry.is_directory() && std::filesystem::exists(entry.path() / "golden.safetensors")) {
      found.insert(entry.path().filename());
    }
  }
  const auto names = golden_names();
  EXPECT_EQ(found, std::set<std::string>(names.begin(), names.end()));
}

}  // namespace
}  // namespace hesper::oracle
