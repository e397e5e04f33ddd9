#include "ops/tier_products.h"

#include <ATen/Context.h>

#include "ops/fused.h"
#include "ops/product.h"

namespace hesper {
namespace {

// Terms of one fp32 accumulator: tensor cores cut digits off at every addition, 2.5e-5 of a sum of 8192 squares
// (measured on an H200).
constexpr int64_t kPiece = 2048;
// Terms of one product hi hi' of a layer, whose signs vary: 3e-4 is lost over 8192 behind the terms of lo.
constexpr int64_t kLongest = 4096;

/// TF32 in matrix products, for the life of this object.
class AllowTf32 {
 public:
  explicit AllowTf32(bool on) : before_(at::globalContext().allowTF32CuBLAS()), on_(on) {
    if (on_) at::globalContext().setAllowTF32CuBLAS(true);
  }
  ~AllowTf32() {
    if (on_) at::globalContext().setAllowTF32CuBLAS(before_);
  }
  AllowTf32(const AllowTf32&) = delete;
  AllowTf32& operator=(const AllowTf32&) = delete;

 private:
  bool before_, on_;
};

Tensor high(const Tensor& x) { return x.to(at::kBFloat16); }
Tensor low(const Tensor& x, const Tensor& hi) { return (x - hi.to(at::kFloat)).to(at::kBFloat16); }

Tensor flat(const Tensor& x) { return x.dim() == 2 ? x : x.reshape({-1, x.size(-1)}); }

// sum (rows, n) += a b of bf16 factors, or = where sum is undefined. Without tensor cores (tests of the arithmetic on a
// CPU): the same products of fp32 copies.
void add_mm(Tensor& sum, const Tensor& a, const Tensor& b) {
  if (!a.is_cuda())
    sum = sum.defined() ? sum.add_(a.to(at::kFloat).mm(b.to(at::kFloat))) : a.to(at::kFloat).mm(b.to(at::kFloat));
  else if (sum.defined())
    at::addmm_out(sum, sum, a, b, at::kFloat);
  else
    sum = at::mm(a, b, at::kFloat);
}

// The same for a left factor of width k, 2k [hi | lo] or 3k [hi | lo | hi] and its right factor, of 2k rows where the
// weight has no lo: [lo | hi] alone then meet it. Small terms go first: every addition cuts the accumulator at its own
// size.
void add_pieces(Tensor& sum, const Tensor& left, const Tensor& b, int64_t k) {
  const int64_t spare = std::max<int64_t>(left.size(1) - b.size(0), 0);
  const Tensor a = left.narrow(1, spare, left.size(1) - spare);
  if (a.size(1) == b.size(0) && k <= kLongest) return add_mm(sum, a, b);
  const int64_t small = b.size(0) - k;  // terms of lo
  if (small > 0) add_mm(sum, a.narrow(1, 0, small), b.narrow(0, 0, small));
  const Tensor hi = a.narrow(1, a.size(1) == small ? 0 : small, k);
  for (int64_t i = 0; i < k; i += kLongest) {
    const int64_t n = std::min(kLongest, k - i);
    add_mm(sum, hi.narrow(1, i, n), b.narrow(0, small + i, n));
  }
}

// The same for batches of bf16 planes or of fp32 matrices.
void add_bmm(Tensor& sum, const Tensor& a, const Tensor& b) {
  if (a.scalar_type() != at::kBFloat16)
    sum = sum.defined() ? sum.baddbmm_(a, b) : a.bmm(b);
  else if (!a.is_cuda())
    add_bmm(sum, a.to(at::kFloat), b.to(at::kFloat));
  else
    sum = sum.defined() ? at::baddbmm(sum, a, b, at::kFloat) : at::bmm(a, b, at::kFloat);
}

/// {hi, lo} of x, {hi} where x is that alone
Tensors planes(const Tensor& x) {
  if (x.scalar_type() == at::kBFloat16) return x.unbind(0);
  if (fused::serves(x)) return fused::planes(x.contiguous());
  const Tensor hi = high(x);
  return {hi, low(x, hi)};
}

}  // namespace

std::string to_string(Products products) {
  switch (products) {
    case Products::full:
      return "full";
    case Products::bf16x3:
      return "bf16x3";
    case Products::tf32:
      return "tf32";
    case Products::bf16:
      return "bf16";
  }
  return "";
}

Tensor left_factor(const Tensor& x, Products products) {
  if (!splits(products) || x.scalar_type() == at::kBFloat16) return x;
  if (products == Products::bf16) return high(x);
  if (fused::serves(x)) return fused::split(x);
  const Tensor hi = high(x);
  return at::cat({hi, low(x, hi), hi}, -1);
}

Tensor right_factor(const Tensor& w, Products products) {
  if (products == Products::bf16) return high(w);
  const bool turned = w.stride(0) == 1 && w.size(0) > 1;
  if (w.scalar_type() == at::kBFloat16) return turned ? at::cat({w.t(), w.t()}, 1).t() : at::cat({w, w}, 0);
  if (fused::serves(w)) return turned ? fused::split_weight(w.t(), 1).t() : fused::split_weight(w, 0);
  const Tensor hi = high(w), lo = low(w, hi);
  return turned ? at::cat({lo.t(), hi.t(), hi.t()}, 1).t() : at::cat({lo, hi, hi}, 0);
}

Tensor times(const Tensor& x, const Tensor& w, Products products) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = w.size(1);
  if (splits(products)) {
    Tensor out;
    add_pieces(out, flat(left_factor(x, products)), right_factor(w, products), w.size(0));
    return out.view(shape);
  }
  const AllowTf32 tf32(products == Products::tf32);
  return product(flat(x), w).view(shape);
}

void add_times(Tensor& sum, const Tensor& x, const Tensor& w, Products products) {
  Tensor rows = sum.view({-1, w.size(1)});
  if (splits(products)) return add_pieces(rows, flat(left_factor(x, products)), right_factor(w, products), w.size(0));
  const AllowTf32 tf32(products == Products::tf32);
  add_product(rows, flat(x), w);
}

Tensor token_product(const Tensor& a, const Tensor& b, Products products) {
  if (!splits(products)) return at::matmul(a.transpose(-1, -2), b);
  const int64_t directions = a.dim() == 3 ? a.size(0) : b.size(0), tokens = a.size(-2);
  const auto pieces_of = [&](const Tensor& x) {  // {hi, lo} (K, tokens, ..)
    Tensors out = {high(x)};
    if (products == Products::bf16x3) out = planes(x.reshape({1, -1}));
    for (Tensor& piece : out) {
      piece = piece.view(x.sizes());
      if (x.dim() == 2) piece = piece.unsqueeze(0).expand({directions, -1, -1});
    }
    return out;
  };
  const Tensors x = pieces_of(a), y = pieces_of(b);
  std::vector<std::pair<Tensor, Tensor>> terms = {{x[0], y[0]}};
  if (products == Products::bf16x3) terms = {{x[0], y[1]}, {x[1], y[0]}, {x[0], y[0]}};  // small ones first
  Tensor sum;
  for (const auto& [p, q] : terms)
    for (int64_t i = 0; i < tokens; i += kPiece) {
      const int64_t length = std::min(kPiece, tokens - i);
      add_bmm(sum, p.narrow(1, i, length).transpose(1, 2), q.narrow(1, i, length));
    }
  return sum;
}

Tensor long_product(const Tensor& a, const Tensor& b, Products products) {
  const bool same = a.is_same(b);
  Tensor left = a, right = b;
  std::vector<std::pair<Tensor, Tensor>> small;  // terms of lo, which go first
  if (splits(products)) {
    const Tensors x = planes(a), y = same ? x : planes(b);
    left = x[0], right = y[0];
    if (products == Products::bf16x3) small = {{x[0], y[1]}};
    if (products == Products::bf16x3 && !same) small.push_back({x[1], y[0]});
  }
  const AllowTf32 tf32(products == Products::tf32);
  const int64_t m = a.size(-1), whole = m / kPiece * kPiece;
  const auto cut = [&](const Tensor& x, int64_t begin, int64_t end) {  // (pieces, K, terms)
    return x.narrow(1, begin, end - begin).unflatten(1, {-1, std::min(kPiece, end - begin)}).transpose(0, 1);
  };
  Tensor sum;
  for (const auto& [begin, end] : {std::pair{int64_t{0}, whole}, std::pair{whole, m}}) {
    if (begin == end) continue;
    Tensor pieces;  // (pieces, K, K)
    const auto add = [&](const Tensor& x, const Tensor& y) {
      add_bmm(pieces, cut(x, begin, end), cut(y, begin, end).transpose(1, 2));
    };
    for (const auto& [x, y] : small) add(x, y);
    if (same && pieces.defined()) pieces = pieces + pieces.transpose(1, 2);  // lo hi^T is the transpose of hi lo^T
    add(left, right);
    sum = plus(sum, pieces.sum(0, false, at::kDouble));
  }
  return sum;
}

}  // namespace hesper
