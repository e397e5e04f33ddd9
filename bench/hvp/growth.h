#pragma once
// How time and memory of `hesper exact` grow in t (at b = 1) and in b (at the smallest t), by doubling: the tool as a
// user runs it, its own autograd engine beside it.
#include "row.h"

namespace hesper::bench {

inline constexpr int64_t kGrowthFrom = 8;  // smallest t

/// tool: the program `hesper`; problem.ids is needed. Curves: autograd, two-pass, Gram. Writes PREFIX.csv and
/// PREFIX_{time,memory}_{t,b}.{pdf,png}.
void run_growth(const std::string& tool, const Problem& largest, const std::string& prefix);

}  // namespace hesper::bench
