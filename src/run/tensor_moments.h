#pragma once
// Moments of each tensor of a selection, and of its sums, from samples over the whole selection.
#include "hessian/diagonal_moments.h"
#include "hessian/unit_sums.h"
#include "ops/selection.h"

namespace hesper {

struct TensorMoments {
  const Selection& selection;
  std::vector<const UnitSums*> units;          // one a part of the selection
  std::vector<DiagonalMoments> entries, sums;  // the same

  TensorMoments(const Selection& selection, std::vector<const UnitSums*> units, int64_t windows,
                Samples samples = Samples::random);

  void begin_visit(int64_t window);
  void add(const at::Tensor& z);                    // z (K, n)
  void shift(int64_t window, const at::Tensor& e);  // e (n)
  /// Of all, as DiagonalMoments has them.
  NamedTensors all_sums(const std::string& name, bool known = false);
};

/// For every one of `sums`.
std::vector<const UnitSums*> all_of(const std::vector<UnitSums>& sums);

}  // namespace hesper
