#pragma once
// How time and memory grow in t (at b = 1) and in b (at the smallest t), by doubling.
#include "table.h"

namespace hesper::bench {

inline constexpr int64_t kGrowthFrom = 8;  // smallest t

/// Rows: autograd, two-pass K = 16, Gram. Writes PREFIX.csv and PREFIX_{time,memory}_{t,b}.{pdf,png}.
void run_growth(const Programs& programs, const Problem& largest, const std::string& prefix);

}  // namespace hesper::bench
