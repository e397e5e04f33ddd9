#pragma once
// Runs rows, each in a process of its own, and makes a table of them.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "row.h"

namespace hesper::bench {

/// What starts the processes: this program itself and a Python with torch and transformers for the reference's loop.
struct Programs {
  std::string self, python, reference;  // paths; without the last two that row is left out
};

/// One row in its own process: measure's JSON with {row, peak_bytes}, and the matrix in `matrix`.
nlohmann::json run_row(const Programs& programs, const std::string& row, const Problem& problem,
                       const std::filesystem::path& matrix);

/// Prints one row after the other; rows are those whose name holds one of `wanted` (all where it is empty). Adds to
/// each row: ms_column (median, lowest, highest), ratio_to_autograd, ratio_to_reference, of_bound, gflops, error.
nlohmann::json run_table(const Programs& programs, const Problem& problem, const std::vector<std::string>& wanted);

double median(std::vector<double> values);

}  // namespace hesper::bench
