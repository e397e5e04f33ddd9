#pragma once
// Selection flags -> entries of parameters, in the order of the rows of H: block, then layer in module order, then
// index; of --indices, the order in which they are given.
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
  // Of the chosen blocks: "all" linear layers, "self_attn.q_proj" or "q_proj" (the layer's matrix),
  // "self_attn.q_proj.bias" or "input_layernorm.weight" (any parameter), and globs over these names, linear layers
  // first ("mlp.*", "*.bias"). Wherever it is: a parameter's full name in the checkpoint, or a glob over those. Of a
  // LLaMA model also the names of GGUF files: "blk.0.attn_q" (wherever it is), "attn_q" (of the chosen blocks).
  std::vector<std::string> layers = {"self_attn.q_proj"};
  std::string blocks = "0";  // "0", "0-11", "0,3", "all"
  // At most one of these four ways; none: all of the parameter.
  std::optional<int64_t> t;              // first t entries of row 0 (a vector is one row)
  std::optional<IndexRange> rows, cols;  // either alone takes all of the other
  std::optional<at::Tensor> indices;     // (m) int64, flat, for each parameter; their order is kept
  std::optional<int64_t> random;         // m distinct entries of each parameter
  uint64_t seed = 0;
};

struct SelectedTensor {
  int parameter;     // in parameter_table
  std::string name;  // in the checkpoint
  std::string
      layer;      // "self_attn.q_proj" for a linear layer's matrix, "self_attn.q_proj.bias", outside blocks the name
  int64_t block;  // -1 outside the blocks
  std::vector<int64_t> shape;
  int64_t begin, end;  // rows of H
};

struct ResolvedSelection {
  Selection selection;
  std::vector<SelectedTensor> tensors;  // in the order of the rows of H
};

/// Throws std::invalid_argument naming the flag, the thing asked for and what exists (block out of range, t larger than
/// the row, unknown layer with the layers that exist, empty range, index outside).
ResolvedSelection resolve_selection(const std::vector<ParameterSpec>& table, int64_t blocks,
                                    const SelectionRequest& request);

/// One selection for each tensor of a selection, with the same entries.
std::vector<ResolvedSelection> split_by_tensor(const ResolvedSelection& selection);

/// "0", "0-11", "0,3", "all" -> ascending block numbers. Throws as resolve_selection does.
std::vector<int64_t> parse_blocks(const std::string& text, int64_t blocks);

}  // namespace hesper
