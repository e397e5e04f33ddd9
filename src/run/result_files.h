#pragma once
// What the files of every result share.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "hessian/selection_request.h"
#include "report/record.h"
#include "run/plan.h"

namespace hesper {

/// What was run on what, as names and records say it: the base of every command's job.
struct RunJob {
  std::string model_name;  // last component of the model's path or id
  HubOrigin model_origin;
  std::string model_sha256;  // of the weights
  std::string data_name;
  HubOrigin data_origin;
  Windows windows;
  std::vector<std::string> command_line;
};

/// What every result says of its run.
struct RunOutcome {
  double loss = 0;  // sum of cross entropies / predicted tokens
  int64_t products = 0;
  double seconds = 0;
  std::string device, precision;  // "fp32 tangents, fp64 primal"
  int64_t peak_memory = 0;        // anonymous bytes at the peak
  std::optional<double> precision_error;
};

/// A record with all that, and the options that the result depends on.
RunRecord new_record(const RunJob& job, const RunOutcome& outcome, nlohmann::json configuration);

std::filesystem::path with_extension(const std::filesystem::path& base, const char* extension);

/// Hex; of the names and entries of the selected tensors.
std::string selection_sha256(const ResolvedSelection& selection);

/// Makes the folder and writes a file into it for a moment. Throws std::runtime_error "cannot write FOLDER: reason".
void check_writable(const std::filesystem::path& folder);

/// Of a run's plan, for records.
nlohmann::json plan_json(const Plan& plan);

/// Writes JSON whole or not at all; bytes that are not UTF-8 become U+FFFD.
void write_json(const std::filesystem::path& path, const nlohmann::json& json);

}  // namespace hesper
