#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace hesper {

// Difference of A and B in units of the standard errors.
struct BarDifference {
  double max = 0;     // largest |a - b| / se; infinite where se = 0 and a != b
  double rms = 0;     // root mean square of (a - b) / se over `count`
  int64_t count = 0;  // elements, without those where se = 0 and a = b
};

// All in float64. Figures that have no value (Spearman of a constant, a cosine with zero) are NaN.
struct Comparison {
  int64_t count = 0;                // elements
  double error = 0;                 // |A - B|_F / |B|_F; for vectors the relative l2 distance
  double best_scale = 0;            // s = <A, B> / <A, A>, which makes |s A - B|_F least
  double error_after_scale = 0;     // |s A - B|_F / |B|_F
  double cosine = 0;                // <A, B> / (|A|_F |B|_F)
  double worst_abs = 0;             // max |a - b|
  int64_t diagonal_size = 0;        // of the diagonal; of the whole tensor where that is the diagonal
  double diagonal_spearman = 0;     // rank correlation of the diagonals, ties with their average rank
  int64_t top = 0;                  // k = max(1, diagonal_size / 10)
  double diagonal_top_overlap = 0;  // share of the k largest |d_i| that both have (ties: lower index first)
  std::optional<BarDifference> in_bars;
};

// Rank correlation of two lists of one length, ties with their average rank; NaN where one is constant.
double spearman(const std::vector<double>& a, const std::vector<double>& b);

// A and B of one shape, any dtypes; `standard_error` of the same shape. The diagonal is that of a square matrix, and
// the whole tensor for any other shape or with `whole_is_diagonal` (a diagonal kept in the shape of a square weight).
// Throws std::invalid_argument for unlike shapes (naming both) or empty tensors, std::runtime_error for NaN or
// infinity.
Comparison compare(const at::Tensor& a, const at::Tensor& b,
                   const std::optional<at::Tensor>& standard_error = std::nullopt, bool whole_is_diagonal = false);

nlohmann::json to_json(const Comparison& comparison);

// Reads one tensor of a .pt, .npy or .safetensors file, ours or not: FILE, or FILE:TENSOR for a .safetensors file of
// several tensors. Contiguous on the CPU, the dtype of the file.
// Throws std::invalid_argument for an unknown extension or a tensor left unnamed, std::runtime_error for a bad file.
at::Tensor read_matrix(const std::string& path);

}  // namespace hesper
