#pragma once
// Five diagonals that are called Fisher, empirical Fisher or Hessian, as means of samples z of windows. l_s is window
// s's loss (the mean over its N counted tokens), l_t a token's, X (T, in) what the layer reads:
//   batch         (mean over the windows of a batch of dl_s/dw)^2           one z a batch; depends on the batch's size,
//                                                                           a short last batch counts like the others
//   sequence      (dl_s/dw)^2                                               one z a window
//   token         (1/N) sum_t (dl_t/dw)^2, from random signs of tokens      a z a probe (ops/adjoint_start.h)
//   gauss_newton  diag G_s, from the factor's signs or sampled labels       a z a probe
//   input_gram    (1/T) sum_t X_tc^2 for weights of column c: diag of (1/T) X^T X
#include <functional>

#include "ops/adjoint_start.h"
#include "primal/primal.h"
#include "run/forecast.h"
#include "text/windows.h"

namespace hesper {

enum class FisherKind { batch, sequence, token, gauss_newton, input_gram };
std::string to_string(FisherKind kind);
/// token and gauss_newton
bool is_sampled(FisherKind kind);

struct FisherSampler {
  const Program& program;
  const Parameters& parameters;
  const Selection& selection;
  const Windows& windows;
  FisherKind kind;
  AdjointStart::Kind draw;  // of gauss_newton: factor or labels
  uint64_t seed;
  int64_t probes;  // of a window, where they are sampled
  RunForm form;

  /// Windows, or batches of them: what a sample is of.
  int64_t units() const;
  using Wanted = std::function<bool(int64_t unit)>;
  using Take = std::function<void(int64_t unit, const Tensor& z, const Tensor& losses)>;
  /// Calls take(unit, z, losses) with z (K, n) fp64, whose mean over samples and units is the diagonal, and the losses
  /// of the unit's windows, where wanted(unit), which is asked before every step, says so. grams: where given, (in, in)
  /// fp64 of each part, to which the mean over windows of (1/T) X^T X is added; input_gram only.
  void run(const Wanted& wanted, const Take& take, Tensors* grams = nullptr) const;
  /// Steps of a unit.
  int64_t steps() const;

 private:
  void run_adjoints(const Wanted& wanted, const Take& take) const;
  void run_gradients(const Wanted& wanted, const Take& take) const;
  void run_inputs(const Wanted& wanted, const Take& take, Tensors* grams) const;
};

}  // namespace hesper
