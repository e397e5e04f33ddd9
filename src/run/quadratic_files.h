#pragma once
// The files of a quadratic run, NAME = quadratic_{against}_{group}_b{b} (_T{seqlen} where it is not 2048):
//   NAME.pt               (K, K) fp64: d_i^T H d_j / 2
//   NAME.csv              a row a direction: name, norm, g.d, forms, predicted and actual change, each with its error
//   NAME.aux.safetensors  gradient, Gauss-Newton and residual forms and every standard error
//   NAME.pdf .png         the matrix |q_ij| by blocks
//   NAME.bars.pdf .png    predicted and actual change a direction
//   NAME.line.pdf .png    predicted and actual change along all directions together; where losses were measured
//   NAME.rank.*           what the directions are ranked by (rank_files.h); where asked for
//   NAME.json             what was run and what came out; written last
#include <filesystem>
#include <string>
#include <vector>

#include "run/quadratic.h"
#include "run/result_files.h"

namespace hesper {

struct QuadraticJob : RunJob {
  std::string against;  // name of the second checkpoint or of the basis file
  HubOrigin against_origin;
  std::string against_sha256;  // of its weights, or of the file
  std::string group;           // model, block, layer, tensor or basis
  NamedDirections directions;
  QuadraticOptions options;
};

std::string quadratic_name(const QuadraticJob& job);

/// Where the state of an unfinished run is kept, and the options that it and the result depend on.
std::filesystem::path snapshot_file(const std::filesystem::path& folder, const QuadraticJob& job);
nlohmann::json configuration(const QuadraticJob& job);

/// Throws std::invalid_argument where a result of that name was made with another configuration.
void check_existing(const std::filesystem::path& folder, const QuadraticJob& job);

/// Pairs i < j by |q_ij + q_ji|, the largest first, at most `most`.
struct Pair {
  int64_t i = 0, j = 0;
  double change = 0, error = 0;  // q_ij + q_ji and its standard error (NaN for one window)
};
std::vector<Pair> largest_pairs(const QuadraticResult& result, int64_t most);

/// Writes all files into `folder`, which exists; hands back the path without extension. Throws std::runtime_error when
/// a file cannot be written.
std::string write_quadratic(const std::filesystem::path& folder, const QuadraticJob& job,
                            const QuadraticResult& result);

}  // namespace hesper
