#pragma once
// Which weights are differentiated: n scalars, dealt over parameters. Row i of H belongs to entry i.
#include <ATen/ATen.h>

#include <vector>

namespace hesper {

/// The selected entries of one parameter, a matrix (rows, cols) or a vector (1, cols).
struct SelectedPart {
  int parameter = -1;
  int64_t begin = 0;          // its entries are rows [begin, begin + size) of H
  int64_t size = 0;           // 0: moved as a whole, no index below is defined
  int64_t columns = 0;        // width of the parameter
  bool whole = false;         // every entry, in order
  at::Tensor flat;            // (size) int64: index into the flattened parameter; undefined where whole
  at::Tensor rows, cols;      // distinct rows and columns that hold an entry, ascending
  at::Tensor row_at, col_at;  // (size) int64: each entry's place in rows and cols; undefined where whole

  at::Device device() const { return rows.device(); }  // of the indices
  /// Indices of entries [first, end) into the flattened parameter.
  at::Tensor entries(int64_t first, int64_t end) const;
  at::Tensor entries() const { return entries(0, size); }
};

class Selection {
 public:
  Selection() = default;
  /// Adds entries of parameter p (shape of one or two axes); flat: (m) int64, any order, no duplicates.
  /// Throws std::invalid_argument for an index out of range or twice.
  void add(int p, at::IntArrayRef shape, at::Tensor flat);
  /// All entries of parameter p.
  void add_whole(int p, at::IntArrayRef shape);
  /// Parameter p moves with whole-tensor directions (Directions::moves): nothing is read at it, no row of H is its own.
  void add_moved(int p);

  /// Null when parameter p is not selected.
  const SelectedPart* find(int p) const;
  bool has(int p) const { return find(p) != nullptr; }
  int64_t size() const { return size_; }  // n
  const std::vector<SelectedPart>& parts() const { return parts_; }
  /// A copy whose index tensors live on `device`.
  Selection to(at::Device device) const;
  /// The same with each parameter's on a device of its own.
  Selection to(const std::vector<at::Device>& by_parameter) const;

 private:
  SelectedPart next(int p) const;

  std::vector<SelectedPart> parts_;
  int64_t size_ = 0;
};

}  // namespace hesper
