#pragma once
// The parts of run_check (check.h): one object that holds the model at theta, the directions and their exact products.
#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "hessian/check.h"
#include "hessian/finite_differences.h"
#include "ops/parameters.h"
#include "ops/selection.h"
#include "primal/primal.h"

namespace hesper {

constexpr double kEps64 = std::numeric_limits<double>::epsilon(), kEps32 = std::numeric_limits<float>::epsilon();
constexpr double kHeadroom = 16;  // between the noise of one evaluation and the largest error that it explains

inline double l2(const Tensor& x) { return x.norm().item<double>(); }
/// |a - b| / |b|
inline double relative(const Tensor& a, const Tensor& b) { return l2(a - b) / std::max(l2(b), 1e-300); }

class Checker {
 public:
  Checker(const Model& model, const Selection& selection, const Windows& windows, const CheckOptions& options);
  CheckReport run(const Windows& windows);

 private:
  /// Mean over windows of what a tangent pass gives.
  struct Products {
    Tensor gradient;  // (n)
    double loss = 0;
    Tensor hv, gv, rv;        // (K, n); gv, rv only where asked for
    Tensor gram, gram_gauss;  // (K, K); only where asked for
  };

  Products products(const Parameters& parameters, at::ScalarType primal, const Tensor& v, bool all) const;
  void choose_directions();
  void measure_noise();
  void describe(const Windows& windows);
  void within_fp64();
  void in_run_precision();
  void by_autograd();     // check_by_autograd.cpp
  void by_differences();  // check_by_differences.cpp

  /// A judged row, and one shown for information.
  void row(std::string what, std::string against, double error, double bound, std::string reason);
  void shown(std::string what, std::string against, double error, double bound, std::string reason);

  /// a, b (K, K) of V^T H V, relative to |V| |H V| (rows of V are unit vectors).
  double form_error(const Tensor& a, const Tensor& b) const { return l2(a - b) / std::max(hv_, 1e-300); }

  const Model& model_;
  const CheckOptions& options_;
  const Selection selection_;
  const Program program_;
  const Tokens tokens_;
  const Parameters wide_;  // fp64
  const bool relu_;
  const std::optional<RouterMargin> router_;
  const FiniteDifferences differences_;
  Tensor v_;  // (K, n) fp64, unit rows
  std::vector<std::string> names_;
  Products exact_;
  double hv_ = 0;     // |H V|
  double noise_ = 0;  // of H V in fp64, relative
  std::string noise_reason_;
  std::optional<double> plain_error_;  // of H V by autograd in fp32
  CheckReport report_;
};

}  // namespace hesper
