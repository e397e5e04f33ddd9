#pragma once
// A diagonal's column sums as an importance matrix of llama.cpp: for `llama-quantize --imatrix`.
//
// Quantising a row w of a layer's weight to q, llama.cpp minimises sum_j a_j (w_j - q_j)^2 with one a for all rows of
// the layer, a_j = in_sum2_j / counts. Its own a_j is the mean of x_j^2 over tokens, the Gram diagonal of the layer's
// input. To second order the loss changes by sum_ij h_ij (w_ij - q_ij)^2 / 2 (its diagonal part), whose best a that all
// rows share is the mean over rows:
//   a_j = (1/rows) sum_i h_ij,   counts = predicted tokens of all windows,   in_sum2_j = counts a_j
// so that importance matrices of several texts add up as llama.cpp adds them.
//
// a_j must be positive, and h has negative entries. Rule: a column whose sum lies below a thousandth of the mean of the
// positive ones (negative ones do) is given that thousandth; how many were is said. A layer without a positive column
// is left out, by name. Gauss-Newton diagonals have no negative sums but those of noise.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "run/diagonal_files.h"

namespace hesper {

inline constexpr double least_importance = 1e-3;  // of the mean over positive columns

/// Throws std::invalid_argument where a selected tensor is not the whole weight of a layer that llama.cpp has a name
/// for.
void check_imatrix(const DiagonalJob& job);

struct ImatrixColumns {
  int64_t columns = 0, raised = 0;    // of the tensors in the file
  std::vector<std::string> left_out;  // tensors
};

/// Throws std::runtime_error where no tensor has a positive column or the file cannot be written.
ImatrixColumns write_imatrix(const std::filesystem::path& path, const DiagonalJob& job, const DiagonalResult& result);

}  // namespace hesper
