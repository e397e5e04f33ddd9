#pragma once
// The files of a diagonal, whatever estimated it, in FOLDER/diag_hessian.
// One tensor, NAME = hessian_diag_{layer}_block{i}_{method}_b{b}_seed{seed}[_T{seqlen}][_sel{8 hex}]:
//   NAME.pt (in the weight's shape), NAME.pdf .png (heat map), NAME.csv (sums with bars, unit_sums.h), NAME.json;
//   with full errors NAME.safetensors, as below
// Several tensors, NAME = hessian_diag_{n}_tensors_{method}_b{b}_seed{seed}[_T{seqlen}]_sel{8 hex}: of each tensor
//   {block}/{layer}_{method}_b{b}_seed{seed}[_T{seqlen}] .pt .pdf .png, and of all
//   NAME.safetensors (by full names; with full errors NAME.stderr_probe and NAME.stderr_data beside each),
//   NAME.pdf .png (overview, layers x blocks), NAME.csv, NAME.json
// A .json is written last, so it marks a whole result.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "hessian/diagonal_moments.h"
#include "hessian/selection_request.h"
#include "hessian/unit_sums.h"
#include "run/result_files.h"
#include "text/windows.h"

namespace hesper {

/// What was asked for.
struct DiagonalJob : RunJob {
  std::string title;   // of pictures: "Hessian diagonal, 100 probes a window"
  std::string method;  // in names: "vhp_samples100", "fisher", "exact"
  ResolvedSelection selection;
  std::vector<UnitSums> sums;     // one a tensor
  bool double_precision = false;  // of the files; else float32
  bool full_errors = false;
  uint64_t seed = 0;
  nlohmann::json configuration;  // options of the method that the result depends on; the writer adds model, data,
                                 // selection and errors
};

/// Of one tensor.
struct TensorDiagonal {
  DiagonalBars entries;                             // (m)
  DiagonalBars sums;                                // of UnitSums
  nlohmann::json notes = nlohmann::json::object();  // what the method has to say of it, for the record
};

struct DiagonalResult : RunOutcome {
  std::vector<TensorDiagonal> tensors;              // as the job's selection
  nlohmann::json notes = nlohmann::json::object();  // plan, scope, stop, ... for the record
};

/// A bar's value, or why there is none.
nlohmann::json to_json(const RelativeBars& bars);

/// Path of the result below `folder`, without extension: that of all tensors.
std::string diagonal_name(const DiagonalJob& job);
/// The same of tensor i: of the result itself where there is one tensor only.
std::string tensor_name(const DiagonalJob& job, size_t i);

/// Where the state of an unfinished run is kept, and the options that it and the result depend on.
std::filesystem::path snapshot_file(const std::filesystem::path& folder, const DiagonalJob& job);
nlohmann::json configuration(const DiagonalJob& job);

/// True where a result of that name is in `folder` already.
bool diagonal_exists(const std::filesystem::path& folder, const DiagonalJob& job);
/// Throws std::invalid_argument where one was made with another configuration or its record cannot be read.
void check_existing(const std::filesystem::path& folder, const DiagonalJob& job);

/// Writes all files; returns the path of the result without extension. Throws std::runtime_error when a file cannot be
/// written.
std::string write_diagonals(const std::filesystem::path& folder, const DiagonalJob& job, const DiagonalResult& result);

}  // namespace hesper
