#pragma once
// Which tangents are read by products alone, inside one segment: their makers may write them as left factors
// (tier_products.h) and spare a pass over memory.
#include "model/program.h"
#include "ops/selection.h"
#include "ops/tier_products.h"

namespace hesper {

struct Factors {
  bool output = false;  // of forward_tangent: every reader of the value multiplies
  unsigned inputs = 0;  // of adjoint_tangent, bit i: the maker of input i multiplies, and no other op reads that input
};

/// One for each op of the program; all false where left factors have no form of their own.
std::vector<Factors> factors_of(const Program& program, const Selection& selection, Products products);

}  // namespace hesper
