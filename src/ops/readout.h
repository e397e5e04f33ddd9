#pragma once
// Weight adjoints at the selected entries, summed over tokens in fp64: the gradient (one row a sequence) or H V (one
// row a direction). Ops hand over the factors of each formula; only selected rows and columns are multiplied.
#include "ops/op.h"
#include "ops/selection.h"

namespace hesper {

class Readout {
 public:
  /// `selection` outlives the readout.
  Readout(const Selection& selection, int64_t rows, at::Device device);
  /// One that keeps its products until `commit`: what a thread collects for its cut of the tokens.
  explicit Readout(const Selection& selection) : selection_(&selection) {}

  bool wants(int parameter) const { return parameter >= 0 && selection_->has(parameter); }
  /// w_bar (out, in) += a^T b summed over tokens; a (K, tokens, out), b (K, tokens, in), either may lack K. Row k of
  /// the result goes to row first + k.
  void outer(int parameter, const Tensor& a, const Tensor& b, int64_t first = 0);
  /// w_bar (width) += a summed over tokens; a (K, tokens, width).
  void column_sums(int parameter, const Tensor& a);
  /// w_bar (table, width) += a at the rows `ids`; ids (tokens) or (K, tokens), a (K, tokens, width).
  void table_rows(int parameter, const Tensor& ids, const Tensor& a);

  /// Adds what was kept to `total`.
  void commit(Readout& total);

  const Tensor& values() const { return values_; }  // (rows, n) fp64

 private:
  void add(const SelectedPart& part, const Tensor& product, int64_t first = 0);

  struct Pending {
    int64_t first, begin;
    Tensor values;  // (k, size): entries [begin, begin + size) of rows [first, first + k)
  };
  const Selection* selection_;
  Tensor values_;
  std::vector<Pending> pending_;
};

}  // namespace hesper
