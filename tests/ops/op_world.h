// A small world for an op to stand on, points in it, and how close is close.
#pragma once

#include <ATen/ATen.h>

#include <string>

#include "ops/op.h"
#include "ops/selection.h"

namespace hesper::test {

/// fp64 sums of at most some ten thousand terms, in another order: eps times a few hundred, with two digits to spare.
constexpr double kExact = 1e-12;
/// Central differences with h = 1e-5 of functions whose derivatives are of order one: truncation h^2/6 times a third
/// derivative of up to a few hundred, rounding eps/h times values: 1e-8 at most each.
constexpr double kStep = 1e-5, kDifference = 1e-7;

/// What an op stands on: B windows of T tokens, its inputs (B T, width), parameters by number and their selection.
struct OpWorld {
  Tokens tokens;
  Tensors inputs;
  Tensors parameters;
  Selection selection;  // entries of `parameters` that move; may be empty

  /// Tokens with random ids below `vocab`, every position counted but the last.
  OpWorld(int64_t windows, int64_t length, int64_t vocab = 7);
  /// m random entries of every parameter, or all of them.
  void select(int64_t m);
  void select_all();
};

/// A point in the space that an op's derivatives live on: inputs x (rows, .), selected weights theta (n).
struct Point {
  Tensors x;
  Tensor theta;
};
double dot(const Point& a, const Point& b);
/// The inputs, then theta.
Tensors list(const Point& p);
/// p + h d, and (a - b) / 2h.
Point moved(const Point& p, const Point& d, double h);
Point difference(const Point& a, const Point& b, double h);

/// The selected entries of `parameters` (n), and parameters with theta (n) in their place.
Tensor selected(const OpWorld& world, const Tensors& parameters);
Tensors place(const OpWorld& world, const Tensor& theta);
/// Rows of window s.
Tensors rows_of(const Tensors& all, int64_t s, int64_t length);

/// |a - b| <= tolerance * scale.
void expect_close(const Tensor& a, const Tensor& b, double tolerance, double scale, const std::string& what);
/// The same for each, all on the scale of |b|: of several adjoints one may be zero up to rounding.
void expect_close(const Tensors& a, const Tensors& b, double tolerance, const std::string& what);
/// Norm of all of them, undefined ones zero.
double size_of(const Tensors& all);

}  // namespace hesper::test
