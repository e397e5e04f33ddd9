#pragma once
// Sums of a tensor's diagonal that quantisation and pruning rank by: over the layer, each row (output), each column
// (input), each attention head and each group of `group_size` columns of a row; of h_i itself and of the saliency of
// optimal brain damage, h_i w_i^2 / 2 (LeCun, Denker, Solla 1990), the second-order change of the loss when w_i is set
// to zero. Entries keep their sign: a negative h_i lowers the sums, nothing is clipped, so that the sums are linear in
// the samples and have honest bars.
#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "hessian/selection_request.h"
#include "model/config.h"

namespace hesper {

/// Sums of one kind, one after another.
struct SumRun {
  std::string unit;       // "layer", "row", "column", "head", "group"
  bool saliency = false;  // of h_i w_i^2 / 2, else of h_i
  int64_t begin = 0, count = 0;
  int64_t stride = 1;                 // group: groups of a row; number = row * stride + group
  std::vector<int64_t> numbers = {};  // row, column or head of each; group: rows
};

class UnitSums {
 public:
  /// weights (m) fp64: values of the part's entries. Rows and columns are known for whole matrices and rectangles of
  /// one, heads and groups for whole matrices.
  UnitSums(const SelectedTensor& tensor, const SelectedPart& part, at::Tensor weights, const ModelConfig& config,
           int64_t group_size);

  int64_t size() const { return size_; }
  const std::vector<SumRun>& runs() const { return runs_; }
  /// The run of a unit (of h_i); null where this selection has none.
  const SumRun* find(const std::string& unit) const;
  /// z (K, m) -> (K, size) fp64, on the CPU; summed on the device of z.
  at::Tensor of(const at::Tensor& z) const;
  /// Shape of the result: the tensor's, (rows, columns) of a rectangle, else (m).
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t group_size() const { return group_size_; }

 private:
  at::Tensor sums_of(const at::Tensor& h) const;  // (m) -> (size / 2)

  std::vector<int64_t> shape_;
  bool matrix_ = false, whole_ = false;
  int64_t head_dim_ = 0;  // 0: no heads
  bool head_rows_ = false;
  int64_t group_size_, size_ = 0;
  at::Tensor half_squares_;                // (m) w^2 / 2
  mutable at::Tensor half_squares_there_;  // the same on the device that asked last
  std::vector<SumRun> runs_;
};

/// Rows and columns of a part that is a whole matrix or a rectangle of one, in row-major order.
bool is_rectangle(const SelectedPart& part, const std::vector<int64_t>& shape);

}  // namespace hesper
