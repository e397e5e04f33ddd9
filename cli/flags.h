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
#include "text/tokenizer.h"
#include "text/windows.h"

namespace hesper::cli {

struct Flags {
  // Model and data
  std::string model;
  std::string revision, cache_dir;
  bool offline = false;
  std::string dataset, dataset_path, config, split, text_column;
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
  bool absent = false;  // the device need not be here: plan
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
/// Where files of the hub come from and go: --cache-dir, --offline.
void add_hub(CLI::App& app, Flags& flags);
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

/// Everything below throws std::invalid_argument (wrong usage) or std::runtime_error (unreadable or damaged files, a
/// network that fails).
Model open_model(const Flags& flags, Console& console);
std::string model_name(const Flags& flags);  // last component of the path or id

/// Text of --dataset, its name for records, and where it came from.
struct Text {
  std::string text, name;
  HubOrigin origin = {};
};
Text read_text(const Flags& flags, Console& console);
/// Throws std::invalid_argument where --config, --split or --text-column is given, which `with` has no use for.
void refuse_dataset_flags(const Flags& flags, const std::string& with);

/// XDG_CACHE_HOME/hesper, else ~/.cache/hesper.
std::filesystem::path cache_folder();
/// Ids of the text without BOS; those of long texts are kept in cache_folder()/ids. `model`: path of its files.
std::vector<int32_t> encode(const Tokenizer& tokenizer, const std::string& model, const Text& text);

struct Data {
  Windows windows;
  std::string name;
  HubOrigin origin = {};
};
Data load_data(const Flags& flags, const Model& model, Console& console);
bool has_data(const Flags& flags);
/// What every job says first; the checkpoint's hash, which is dear, comes later.
RunJob run_job(const Flags& flags, const Model& model, const Data& data, const std::vector<std::string>& command_line);
std::filesystem::path results_folder(const Flags& flags);  // --out, or data/{model}
WindowOptions window_options(const Flags& flags, const ModelConfig& config);

/// What --t, --rows, --cols, --indices and --random leave out when none is given: all of each layer, or all but the
/// first 5 weights of row 0.
enum class Unsaid { whole_layer, first_weights };
ResolvedSelection select(const Flags& flags, const Model& model, Unsaid unsaid = Unsaid::first_weights);
ExactOptions exact_options(const Flags& flags);
/// --device
void choose_devices(EngineOptions& options, const Flags& flags);
/// --memory-limit, of a GPU also what LibTorch may take of it.
void limit_memory(EngineOptions& options, const Flags& flags);
/// Tries precisions, where options.accepted_error says so (run/precision_choice.h), and says what was found.
void settle_precision(EngineOptions& options, const Model& model, const Selection& selection, const Windows& windows,
                      Console& console);
void set_threads(const Flags& flags);

/// "self_attn.q_proj of block 0" or "12 tensors".
std::string say_selection(const ResolvedSelection& selection);
/// "4 windows of 256 tokens"
std::string say_windows(const Windows& windows);
/// "MODEL: q_proj of block 0, n = 32, 4 windows of 256 tokens"; what: "gauss-newton of ".
std::string say_run(const std::string& model, const ResolvedSelection& selection, const Windows& windows,
                    const std::string& what = "");
/// "gram, 32 directions at once, fp32 tangents over an fp64 primal pass"
std::string say_plan(const Plan& plan);
/// "1.2 GiB of 8 GiB allowed", and what is streamed to get there.
std::string say_room(const Plan& plan);
/// What every run's "plan" event says.
nlohmann::json plan_event(const Plan& plan);

}  // namespace hesper::cli
