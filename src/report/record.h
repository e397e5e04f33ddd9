#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "report/spectrum.h"

namespace hesper {

// What a run was and what came out, kept as .json beside every result. What is not known or has no value is null.
struct RunRecord {
  struct Model {
    std::string name;
    std::optional<std::string> hub_id;    // "ORG/NAME", where it came from the hub
    std::optional<std::string> revision;  // its commit there
    std::string sha256;                   // of the weights, hex
  };
  struct Data {
    std::string name;
    std::optional<std::string> hub_id, revision;  // as the model's
    std::string sha256;                           // of the ids as int32 little-endian, hex
    int64_t windows = 0;
    int64_t seqlen = 0;  // tokens of a window
  };
  struct Selected {
    std::string tensor;            // full name in the checkpoint
    std::vector<int64_t> shape;    // of the tensor
    std::vector<int64_t> indices;  // flat, in the order of the rows of H
  };
  struct Errors {
    std::optional<double> symmetry, precision, probe, data;
  };

  std::string version;                    // of hesper
  std::vector<std::string> command_line;  // argv
  Model model;
  Data data;
  std::vector<Selected> selection;
  nlohmann::json configuration = nlohmann::json::object();  // the options that the result depends on
  std::optional<double> loss;                               // mean cross entropy, nats a token
  std::optional<double> perplexity;
  std::optional<double> gradient_norm;  // l2 norm over the selection
  std::optional<int64_t> products;      // Hessian-vector products
  double seconds = 0;                   // wall clock
  std::string device;
  std::string precision;
  std::optional<int64_t> peak_memory;  // bytes of anonymous memory at the peak
  Errors errors;
  std::optional<Spectrum> spectrum;
};

// Indices are kept whole: as "ranges" [[begin, end), ...] where that is shorter, else as "indices".
nlohmann::json to_json(const RunRecord& record);
nlohmann::json to_json(const Spectrum& spectrum);

// Throws std::runtime_error when the file cannot be written.
void write_record(const std::filesystem::path& path, const RunRecord& record);

}  // namespace hesper
