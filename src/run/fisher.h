#pragma once
// A run of one of the five Fisher diagonals (fisher_samples.h) over the selected tensors, with error bars.
#include "model/model.h"
#include "run/diagonal_files.h"
#include "run/exact.h"
#include "run/fisher_samples.h"

namespace hesper {

struct FisherOptions : EngineOptions {  // batch: also windows of a batch, for the kind of that name
  FisherKind kind = FisherKind::gauss_newton;
  AdjointStart::Kind draw = AdjointStart::Kind::factor;  // of gauss_newton: factor or labels
  int64_t probes = 100;                                  // of a window, for token and gauss_newton
  uint64_t seed = 0;
};

/// What a run will do; nothing is computed. Throws as make_plan does, std::invalid_argument for input_gram of anything
/// but linear layers' matrices.
Plan plan_fisher(const Model& model, const ResolvedSelection& selection, const std::vector<UnitSums>& sums,
                 const Windows& windows, const FisherOptions& options);

struct FisherResult {
  DiagonalResult diagonal;
  std::vector<at::Tensor> grams;  // input_gram: (in, in) fp64 of each tensor, (1/(b T)) X^T X over all windows
};

/// sums: one a tensor of the selection. Throws what plan_fisher throws, std::runtime_error where a sample is not finite
/// (naming the window), Interrupted.
FisherResult compute_fisher(const Model& model, const ResolvedSelection& selection, const std::vector<UnitSums>& sums,
                            const Windows& windows, const FisherOptions& options, const RunControl& control = {});

}  // namespace hesper
