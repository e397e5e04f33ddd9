#pragma once
// Seconds and two-pass products until a method's true relative error is 25%, 10%, 5%.
#include <nlohmann/json.hpp>

#include "methods.h"

namespace hesper::bench {

inline constexpr double kErrors[] = {0.25, 0.1, 0.05};
std::string say_error(double error);  // "10%", the key of a row's "reach"

struct Budget {
  int64_t samples = 256;   // drawn of a method whose error follows a law
  int64_t bias_rows = 16;  // whose exact Hessians give the bias of balanced signs
  int64_t seeds = 3;       // of whole runs
  int64_t probes = 512;    // of the largest run
};

/// What does not depend on the method: primal seconds, the rows that were checked.
nlohmann::json describe(const Stand& stand, const RowCheck& rows);
RowCheck row_check(const nlohmann::json& layer);  // back from it

/// One row. `reach`: {"25%": {seconds, products, extrapolated}, ..}, null where the error is never reached.
///   samples: error(m)^2 = bias^2 + variance / m, mean square error of one sample = bias^2 + variance measured over all
///            drawn (its standard error beside it); an entry that needs more samples than were drawn is extrapolated by
///            this law. `means` holds it against the law: true errors of 8 disjoint means over an eighth each.
///   runs:    medians over the seeds at 32, 64, .. probes, products as the run counts them; between them a straight
///            line in logarithms, beyond the largest run extrapolated by 1 / sqrt(m).
///   exact:   all rows at the seconds of those checked.
nlohmann::json measure(const Stand& stand, const Method& method, const RowCheck& rows, const Budget& budget);

}  // namespace hesper::bench
