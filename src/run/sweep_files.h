#pragma once
// The files of a sweep, beside the results that it runs through: NAME = sweep_b_{result} or sweep_probes_{result}, with
// the name that the result with all windows and probes has (report/names.h, diagonal_files.h):
//   NAME.csv        a line a point, a column a quantity (run/sweep.h)
//   NAME.pdf .png   the curves, both axes logarithmic
//   NAME.json       what was run and what came out; written last
#include <filesystem>
#include <string>
#include <variant>
#include <vector>

#include "run/sweep.h"

namespace hesper {

enum class SweepOver { windows, probes };

struct SweepJob : RunJob {
  ResolvedSelection selection;
  std::vector<std::string> linear_layers;  // of a block, in module order
  SweepOver over = SweepOver::windows;
  std::variant<ExactOptions, DiagSweep> quantity;  // an exact block or a diagonal
  uint64_t seed = 0;
};

/// Path below the folder of results, without extension.
std::string sweep_name(const SweepJob& job);

/// Where the state of an unfinished run is kept, and the options that it and the result depend on.
std::filesystem::path snapshot_file(const std::filesystem::path& folder, const SweepJob& job);
nlohmann::json configuration(const SweepJob& job);

bool sweep_exists(const std::filesystem::path& folder, const SweepJob& job);
/// Throws std::invalid_argument where a sweep of that name was made with another configuration.
void check_existing(const std::filesystem::path& folder, const SweepJob& job);

/// Writes all files into `folder`, which exists; hands back the path without extension. Throws std::runtime_error when
/// a file cannot be written.
std::string write_sweep(const std::filesystem::path& folder, const SweepJob& job, const SweepResult& result);

}  // namespace hesper
