// One call that holds an op's four maps and its second-order form against LibTorch's autograd over Op::plain, against
// central differences of the op's own maps, and against the identities that bind them together.
#pragma once

#include "ops/cross_entropy.h"
#include "ops/op.h"
#include "ops/op_world.h"

namespace hesper::test {

/// K: directions carried at once.
void expect_second_order(const Op& op, const OpWorld& world, int64_t K = 3);
/// The same for the head: losses, adjoints, H = G + R, and G against J^T Lambda J.
void expect_second_order(const CrossEntropyHead& head, const OpWorld& world, int64_t K = 3);

}  // namespace hesper::test
