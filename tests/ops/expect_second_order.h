// One call that holds an op's four maps and its second-order form against LibTorch's autograd over Op::plain, against
// central differences of the op's own maps, and against the identities that bind them together.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "ops/cross_entropy.h"
#include "ops/directions.h"
#include "ops/op.h"
#include "ops/parameters.h"
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

/// K: directions carried at once.
void expect_second_order(const Op& op, const OpWorld& world, int64_t K = 3);
/// The same for the head: losses, adjoints, H = G + R, and G against J^T Lambda J.
void expect_second_order(const CrossEntropyHead& head, const OpWorld& world, int64_t K = 3);

}  // namespace hesper::test
