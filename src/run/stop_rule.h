#pragma once
// When an estimate has enough probes: rules on its error bars, never on the difference of consecutive means.
#include <cstdint>
#include <string>

#include "hessian/diagonal_moments.h"
#include "hessian/unit_sums.h"

namespace hesper {

enum class StopOf { diagonal, rows, columns, trace };
enum class DiagTarget {
  windows,  // the diagonal of these windows: the probe bar
  corpus,   // of the text they are drawn from: the total bar, or until probes are a third of the data bar
};

struct StopRule {
  double rel_error = 0.1;
  StopOf of = StopOf::diagonal;
  DiagTarget target = DiagTarget::windows;
};

/// Bars are not trusted below this many probes.
inline constexpr int64_t least_probes = 8;

struct Verdict {
  bool stop = false;
  std::string reason;  // "reached", or what stands in the way
  double bar = 0;      // the relative error that the rule looks at; 0: not known
  int64_t more = 0;    // probes of the next round: what the bar asks for, at most as many again
};

/// entries, sums: a tensor's bars after whole rounds. most: probes allowed.
Verdict judge(const StopRule& rule, const DiagonalBars& entries, const DiagonalBars& sums, const UnitSums& units,
              int64_t most);

/// Probes of each window after which the rule's goal is expected, from the bars of some; infinite where they resolve
/// nothing.
double needed_probes(const StopRule& rule, const DiagonalBars& entries, const DiagonalBars& sums,
                     const UnitSums& units);

/// Of what `of` names: summed probe^2, and |d|^2 as estimated.
struct WatchedSquares {
  double variance, square;
};
WatchedSquares watched_squares(StopOf of, const DiagonalBars& entries, const DiagonalBars& sums, const UnitSums& units);

/// Throws std::invalid_argument for a rule that this tensor or these windows cannot serve.
void check_rule(const StopRule& rule, const UnitSums& units, const std::string& tensor, int64_t windows);

std::string to_string(StopOf of);
std::string to_string(DiagTarget target);

}  // namespace hesper
