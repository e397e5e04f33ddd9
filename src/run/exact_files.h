#pragma once
// The files of an exact run: NAME.pt (the matrix), NAME.pdf and NAME.png (its picture), NAME.aux.safetensors (gradient,
// weights, rows, window losses), NAME.json (what was run and what came out; written last, so it marks a whole result).
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "hessian/selection_request.h"
#include "ops/cross_entropy.h"
#include "report/spectrum.h"
#include "run/exact.h"
#include "run/result_files.h"

namespace hesper {

enum class Objective { cross_entropy, perplexity };

/// What was asked for, as names and records say it. There is one result a curvature of `options`.
struct ExactJob : RunJob {
  ResolvedSelection selection;
  std::vector<std::string> linear_layers;  // of a block, in module order
  ExactOptions options;
  Objective objective = Objective::cross_entropy;
  uint64_t seed = 0;
};

/// File name without folder and extension (report/names.h).
std::string exact_name(const ExactJob& job, Curvature curvature);

/// The options that a result depends on, as kept in its .json: two runs of one configuration differ by rounding at
/// most.
nlohmann::json exact_configuration(const ExactJob& job, Curvature curvature);

/// Where the state of an unfinished run is kept, and what that state depends on: exact_configuration and what is
/// summed.
std::filesystem::path snapshot_file(const std::filesystem::path& folder, const ExactJob& job);
nlohmann::json configuration(const ExactJob& job);

/// True where a result of that name is in `folder` already.
bool exact_exists(const std::filesystem::path& folder, const ExactJob& job);

/// Throws std::invalid_argument where a result of that name was made with another configuration (naming the first
/// difference) or its record cannot be read.
void check_existing(const std::filesystem::path& folder, const ExactJob& job);

/// The block for the job's objective, (n, n) fp64: H, G or R of the mean cross entropy; for the perplexity P
/// P (H + g g^T), P (G + g g^T) or P R.
at::Tensor exact_matrix(const ExactJob& job, const ExactResult& result, const ExactBlock& block);

struct WrittenResult {
  std::string base;                  // path without extension
  double norm = 0;                   // |matrix|_F
  std::optional<Spectrum> spectrum;  // n <= max_spectrum_size
};

/// Writes all results of the job; `folder` exists. Throws std::runtime_error when a file cannot be written.
std::vector<WrittenResult> write_exact(const std::filesystem::path& folder, const ExactJob& job,
                                       const ExactResult& result);

/// "fp64", "fp32", as flags and records say them.
std::string precision_name(at::ScalarType precision, Products products = Products::full);
std::string to_string(Curvature curvature);
std::string to_string(Objective objective);

}  // namespace hesper
