#pragma once
// Weight adjoints summed over tokens in fp64, one row a sequence (the gradient) or a direction (H V): their entries at
// the selected weights, or their products with whole-tensor directions, which are the rows of V^T H V. Ops hand over
// the factors of each formula; only what is read is multiplied.
#include "ops/op.h"
#include "ops/selection.h"
#include "ops/tier_products.h"

namespace hesper {

class Readout {
 public:
  /// values (rows, n); `selection` outlives the readout. products: how the sums of whole parameters are multiplied;
  /// those of some entries, whose cost is small, are not split.
  Readout(const Selection& selection, int64_t rows, at::Device device, Products products = Products::full);
  /// values (rows, K) = <w_bar, d_k> of K dense directions, which outlive the readout.
  Readout(const Directions& directions, int64_t rows, at::Device device);
  /// What a pass over `directions` reads: the second kind for whole-tensor directions, else the first.
  static Readout of(const Selection& selection, const Directions& directions, int64_t rows, at::Device device,
                    Products products = Products::full);
  /// One of the same kind that keeps its products until `commit`: what a thread collects for its cut of the tokens.
  Readout cut() const;

  bool wants(int parameter) const;
  /// w_bar (out, in) += a^T b summed over tokens; a (K, tokens, out), b (K, tokens, in), either may lack K. Row k of
  /// the result goes to row first + k.
  void outer(int parameter, const Tensor& a, const Tensor& b, int64_t first = 0);
  /// w_bar (width) += a summed over tokens; a (K, tokens, width).
  void column_sums(int parameter, const Tensor& a);
  /// w_bar (table, width) += a at the rows `ids`; ids (tokens) or (K, tokens), a (K, tokens, width).
  void table_rows(int parameter, const Tensor& ids, const Tensor& a);

  /// Adds what was kept to `total`.
  void commit(Readout& total);

  bool onto_directions() const { return directions_ != nullptr; }
  const Tensor& values() const { return values_; }

 private:
  Readout() = default;
  void add(const SelectedPart& part, const Tensor& product, int64_t first = 0);
  void add(int64_t begin, const Tensor& mine, int64_t first = 0);

  struct Pending {
    int64_t first, begin;
    Tensor values;  // (k, size): columns [begin, begin + size) of rows [first, first + k)
  };
  const Selection* selection_ = nullptr;  // one of the two
  const Directions* directions_ = nullptr;
  Products products_ = Products::full;
  Tensor values_;
  std::vector<Pending> pending_;
};

}  // namespace hesper
