#pragma once
// The flags that commands share, as the user wrote them, and what they turn into.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "console.h"
#include "hessian/selection_request.h"
#include "model/model.h"
#include "run/exact.h"
#include "run/result_files.h"
#include "text/windows.h"

namespace hesper::cli {

struct Flags {
  // Model and data
  std::string model;
  std::string dataset, dataset_path, split;
  std::string token_ids, labels;
  std::optional<int64_t> seqlen, b;
  std::string windows = "first";
  std::string bos;
  std::optional<int64_t> loss_from;
  uint64_t seed = 0;
  int64_t model_input_bs = 1;

  // Selection
  std::vector<std::string> layers;
  std::string block;
  std::optional<int64_t> num_blocks, num_layers;
  std::optional<int64_t> t, random;
  std::string rows, cols, indices;

  // Engine
  std::string engine = "hesper", pass, device = "cpu", precision, primal_precision = "auto", memory_limit;
  int64_t directions = 0;
  std::optional<int> threads;
  std::string curvature = "hessian", errors = "summary";

  // Snapshots
  std::string snapshot_every = "60s";
  bool resume = false;
  std::string parts;

  // Results
  std::string out;
  bool overwrite = false;

  // Output
  bool quiet = false, json = false;
};

/// Puts the options added since the last call under a heading of --help.
void group_options(CLI::App& app, const char* group);

void add_model(CLI::App& app, Flags& flags);
/// Where the text or ids come from, alone and with the windows cut from them.
void add_text(CLI::App& app, Flags& flags);
void add_data(CLI::App& app, Flags& flags);
void add_selection(CLI::App& app, Flags& flags);
void add_exact_engine(CLI::App& app, Flags& flags);
/// Precision, directions and memory of tangent passes: part of the engine's flags.
void add_tangents(CLI::App& app, Flags& flags);
void add_threads(CLI::App& app, Flags& flags);
void add_device(CLI::App& app, Flags& flags);
/// Where results go.
void add_results(CLI::App& app, Flags& flags);
void add_snapshots(CLI::App& app, Flags& flags);
void add_output(CLI::App& app, Flags& flags);

/// Throws std::invalid_argument, naming the flag, when the path is neither a folder nor a .gguf file.
void check_model_path(const char* flag, const std::string& path);

/// Everything below throws std::invalid_argument (wrong usage) or std::runtime_error (unreadable or damaged files).
Model open_model(const Flags& flags);
std::string model_name(const Flags& flags);  // last component of the path

/// Text of --dataset and its name for records.
struct Text {
  std::string text, name;
};
Text read_text(const Flags& flags);

struct Data {
  Windows windows;
  std::string name;
};
Data load_data(const Flags& flags, const Model& model, Console& console);
bool has_data(const Flags& flags);
/// What every job says first; the checkpoint's hash, which is dear, comes later.
RunJob run_job(const Flags& flags, const Data& data, const std::vector<std::string>& command_line);
std::filesystem::path results_folder(const Flags& flags);  // --out, or data/{model}
WindowOptions window_options(const Flags& flags, const ModelConfig& config);

/// What --t, --rows, --cols, --indices and --random leave out when none is given: all of each layer, or all but the
/// first 5 weights of row 0.
enum class Unsaid { whole_layer, first_weights };
ResolvedSelection select(const Flags& flags, const Model& model, Unsaid unsaid = Unsaid::first_weights);
ExactOptions exact_options(const Flags& flags);
void set_threads(const Flags& flags);

/// "self_attn.q_proj of block 0" or "12 tensors".
std::string say_selection(const ResolvedSelection& selection);
/// "4 windows of 256 tokens"
std::string say_windows(const Windows& windows);
/// "gram, 32 directions at once, fp32 tangents over an fp64 primal pass"
std::string say_plan(const Plan& plan);

}  // namespace hesper::cli
