#pragma once
// Selection flags -> entries of parameters, in the order of the rows of H: block, then layer in module order, then index.
#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/tensor_names.h"
#include "ops/selection.h"

namespace hesper {

struct IndexRange {
  int64_t begin, end;  // [begin, end)
};

struct SelectionRequest {
  std::vector<std::string> layers = {"self_attn.q_proj"};  // names, globs, "all", or a parameter's full name
  std::string blocks = "0";                                // "0", "0-11", "0,3", "all"
  // At most one of these four ways; none: all of the parameter.
  std::optional<int64_t> t;  // first t entries of row 0
  std::optional<IndexRange> rows, cols;
  std::optional<at::Tensor> indices;  // (m) int64, flat
  std::optional<int64_t> random;      // m distinct entries of each parameter
  uint64_t seed = 0;
};

struct SelectedTensor {
  int parameter;  // in parameter_table
  std::string name, layer;
  int64_t block;
  std::vector<int64_t> shape;
  int64_t begin, end;  // rows of H
};

struct ResolvedSelection {
  Selection selection;
  std::vector<SelectedTensor> tensors;  // in the order of the rows of H
};

/// Throws std::invalid_argument naming the flag, the thing asked for and what exists (block out of range, t larger than the
/// row, unknown layer with the layers that exist, empty range, index outside).
ResolvedSelection resolve_selection(const std::vector<ParameterSpec>& table, int64_t blocks, const SelectionRequest& request);

}  // namespace hesper
