#pragma once
// Proof on the user's own model, data and selection: the hand-written derivatives against LibTorch's double backward,
// against each other, and against finite differences.
#include <optional>
#include <string>
#include <vector>

#include "hessian/check_report.h"
#include "model/model.h"
#include "ops/selection.h"
#include "text/windows.h"

namespace hesper {

struct CheckOptions {
  int64_t windows = 1;                    // the first ones
  int64_t directions = 4;                 // K, 1 .. 4: unit vector of the largest |gradient|, the gradient, random ones
  int64_t differenced = 2;                // of them, how many are also checked by finite differences (0: none)
  std::vector<double> steps = {};         // h of finite differences; empty: default_steps of finite_differences.h
  at::ScalarType precision = at::kFloat;  // of the run that is vouched for: tangents
  std::optional<at::ScalarType> primal = {};  // and its primal pass; unset: fp64
  at::Device device = at::kCPU;
  int64_t memory_limit = 0;  // bytes that autograd's graph may take; 0: no limit
  uint64_t seed = 0;
  std::string data_name = {};  // for the header of the table: dataset or file
};

/// Throws std::invalid_argument for options out of range, std::runtime_error for a result that is not finite.
CheckReport run_check(const Model& model, const Selection& selection, const Windows& windows,
                      const CheckOptions& options);

}  // namespace hesper
