#pragma once
// Rademacher probes over the selected weights.
#include <ATen/ATen.h>

#include <cstdint>

#include "ops/random.h"
#include "ops/selection.h"

namespace hesper {

/// Probes first, ..., first + count - 1 over the selected entries: (count, n) of +-1, the same on every device. The
/// stream is the parameter's number and the entry its flat index, so a weight has the same signs whatever else is
/// selected. Throws std::invalid_argument for a window or probe beyond 2^32 - 1.
at::Tensor rademacher(const Selection& selection, uint64_t seed, int64_t window, int64_t first, int64_t count,
                      at::ScalarType dtype, at::Device device = at::kCPU);
/// How a GPU makes them.
at::Tensor rademacher_by_tensors(const Selection& selection, uint64_t seed, int64_t window, int64_t first,
                                 int64_t count, at::ScalarType dtype, at::Device device);

}  // namespace hesper
