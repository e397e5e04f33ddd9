#include "flags.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <stdexcept>

#include "hub.h"
#include "refuse.h"
#include "run/device_memory.h"
#include "run/exact_files.h"
#include "run/precision_choice.h"
#include "text/npy.h"
#include "text/tokenizer.h"
#include "values.h"

namespace hesper::cli {
namespace {

namespace fs = std::filesystem;

}  // namespace

void group_options(CLI::App& app, const char* group) {
  for (CLI::Option* option : app.get_options()) {
    if (option->get_group() == "Options" && option != app.get_help_ptr()) option->group(group);
  }
}

void add_model(CLI::App& app, Flags& f) {
  app.add_option("--model", f.model, "model folder in Hugging Face layout, .gguf file, or ORG/NAME of the hub")
      ->required();
  add_hub(app, f);
}

void add_hub(CLI::App& app, Flags& f) {
  app.add_option("--revision", f.revision, "of a model of the hub: branch, tag or commit (main)");
  app.add_option("--cache-dir", f.cache_dir, "where files of the hub are kept (HF_HUB_CACHE, HF_HOME/hub)");
  app.add_flag("--offline", f.offline, "only what the cache holds; nothing is fetched");
  group_options(app, "Model and data");
}

void add_text(CLI::App& app, Flags& f) {
  app.add_option(
      "--dataset", f.dataset,
      "wikitext2, wikitext103, a file (.txt, .jsonl, .parquet, .gz), or a folder or ORG/NAME[/FILE] of the hub");
  app.add_option("--dataset-path", f.dataset_path, "WikiText-2's raw file (wiki.test.raw), instead of fetching it");
  app.add_option("--config", f.config, "which configuration of a dataset: a folder of it");
  app.add_option("--split", f.split, "which split of a dataset (test)");
  app.add_option("--text-column", f.text_column, "where rows have their text (text)");
  app.add_option("--bos", f.bos, "beginning of sequence: once before the document (default), each window, or none")
      ->check(CLI::IsMember({"document", "window", "none"}));
  group_options(app, "Model and data");
}

void add_data(CLI::App& app, Flags& f) {
  add_text(app, f);
  app.add_option("--token-ids", f.token_ids, ".npy of ids instead of a text: a stream (N) or windows (n, T)");
  app.add_option("--labels", f.labels, ".npy of the same shape as the windows, -100: no loss");
  app.add_option("--seqlen", f.seqlen, "tokens a window (2048, or what the model and the text allow)");
  app.add_option("--b", f.b, "windows (30, or what the text has)");
  app.add_option("--windows", f.windows, "first, random or A:B")->capture_default_str();
  app.add_option("--loss-from", f.loss_from, "first position whose prediction counts (1)");
  app.add_option("--model-input-bs", f.model_input_bs, "windows of a primal pass; tangents go one window at a time")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--seed", f.seed, "of --windows random and --random")->capture_default_str();
  group_options(app, "Model and data");
}

void add_selection(CLI::App& app, Flags& f) {
  app.add_option("--layer,--layer-name", f.layers,
                 "self_attn.q_proj (default), q_proj, several, globs (\"mlp.*\"), all, or a parameter's full name")
      ->delimiter(',');
  app.add_option("--block,--block-index", f.block, "0 (default), 0-11, 0,3 or all");
  app.add_option("--num-blocks", f.num_blocks, "the first blocks, instead of --block")
      ->check(CLI::PositiveNumber)
      ->excludes("--block");
  app.add_option("--num-layers", f.num_layers, "the first linear layers of a block, instead of --layer")
      ->check(CLI::PositiveNumber)
      ->excludes("--layer");
  app.add_option("--t", f.t, "the first weights of row 0 of each layer (exact: 5, where nothing else is chosen)");
  app.add_option("--rows", f.rows, "a:b, rows of each layer");
  app.add_option("--cols", f.cols, "c:d, columns of each layer");
  app.add_option("--indices", f.indices, "flat indices into each layer, their order kept: .pt, .npy or text file");
  app.add_option("--random", f.random, "so many random weights of each layer");
  group_options(app, "Selection");
}

void add_device(CLI::App& app, Flags& f) {
  app.add_option("--device", f.device, "cpu, cuda or cuda:i; cuda:0,cuda:1: the model's blocks dealt to several")
      ->capture_default_str();
  group_options(app, "Engine");
}

void add_threads(CLI::App& app, Flags& f) {
  app.add_option("--threads", f.threads, "CPU threads (all cores)")->check(CLI::Range(1, 4096));
  group_options(app, "Engine");
}

void add_tangents(CLI::App& app, Flags& f) {
  app.add_option(
      "--precision", f.precision,
      "of tangents: fp64 or fp32 (.pt has the same), on a GPU also bf16x3, tf32, bf16; or an error such as 1e-3: the "
      "cheapest that a trial finds within it; auto (default): fp32 on a CPU, 1e-4 on a GPU, or a tenth of --rel-error");
  app.add_option("--primal-precision", f.primal_precision, "fp64, fp32, or auto: fp64 where that costs little")
      ->capture_default_str();
  app.add_option("--directions", f.directions, "directions at once, instead of the planner's choice")
      ->check(CLI::PositiveNumber);
  app.add_option("--memory-limit", f.memory_limit, "such as 16GiB (all that is free)");
  group_options(app, "Engine");
}

void add_exact_engine(CLI::App& app, Flags& f) {
  app.add_option("--engine", f.engine, "hesper, or autograd (LibTorch's double backward)")
      ->check(CLI::IsMember({"hesper", "autograd"}))
      ->capture_default_str();
  app.add_option("--pass", f.pass, "gram or two-pass instead of the planner's choice")
      ->check(CLI::IsMember({"gram", "two-pass"}));
  app.add_option("--curvature", f.curvature, "hessian, gauss-newton, residual or all three")
      ->check(CLI::IsMember({"hessian", "gauss-newton", "residual", "all"}))
      ->capture_default_str();
  app.add_option("--errors", f.errors, "summary, or full: the standard error of every entry too")
      ->check(CLI::IsMember({"summary", "full"}))
      ->capture_default_str();
  add_tangents(app, f);
  add_device(app, f);
  add_threads(app, f);
  group_options(app, "Engine");
}

void add_results(CLI::App& app, Flags& f) {
  app.add_option("--out", f.out, "folder of the results (data/{model})");
  app.add_flag("--overwrite", f.overwrite, "also results made with another configuration");
}

void add_snapshots(CLI::App& app, Flags& f) {
  app.add_option("--snapshot-every", f.snapshot_every, "time between two snapshots of a run: 30s, 5m, 1h")
      ->capture_default_str();
  app.add_flag("--resume", f.resume, "go on from the snapshot, which must be there (without it: if it is there)");
  app.add_option("--parts", f.parts, "i/N: this part of the run only, into NAME.iofN.part; hesper merge joins them");
  group_options(app, "Snapshots and parts");
}

void add_output(CLI::App& app, Flags& f) {
  app.add_flag("--quiet", f.quiet, "results and errors only");
  app.add_flag("--json", f.json, "events on standard output, one JSON object a line");
  group_options(app, "Output");
}

Model open_model(const Flags& flags, Console& console) {
  const ModelSource source = find_model("--model", flags.model, flags, ModelPart::all, console);
  Model model = load_model(source.path);
  model.origin = source.origin;
  return model;
}

RunJob run_job(const Flags& flags, const Model& model, const Data& data, const std::vector<std::string>& command_line) {
  return {model_name(flags), model.origin, "", data.name, data.origin, data.windows, command_line};
}

fs::path results_folder(const Flags& flags) {
  return flags.out.empty() ? fs::path("data") / model_name(flags) : fs::path(flags.out);
}

std::string model_name(const Flags& flags) {
  fs::path path = fs::absolute(flags.model).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

bool has_data(const Flags& flags) {
  return !flags.dataset.empty() || !flags.dataset_path.empty() || !flags.token_ids.empty();
}

WindowOptions window_options(const Flags& flags, const ModelConfig& config) {
  WindowOptions options;
  options.seqlen = flags.seqlen;
  options.b = flags.b;
  options.windows = flags.windows;
  if (!flags.bos.empty()) options.bos = parse_bos_placement(flags.bos);
  options.loss_from = flags.loss_from.value_or(1);
  options.seed = flags.seed;
  // OPT has a table of positions; LLaMA's rotary embedding goes on beyond what it was trained for, when asked to.
  if (config.rotary_dims == 0 || !flags.seqlen) options.max_seqlen = config.max_positions;
  return options;
}

Data load_data(const Flags& flags, const Model& model, Console& console) {
  std::vector<std::string> notes;
  WindowOptions options = window_options(flags, model.config());
  Data data;
  if (!flags.token_ids.empty()) {
    if (!flags.dataset.empty() || !flags.dataset_path.empty()) refuse("--token-ids stands instead of --dataset");
    refuse_dataset_flags(flags, "--token-ids");
    const bool stream = read_npy(flags.token_ids).dim() == 1;
    if (!stream && model.config().rotary_dims > 0) options.max_seqlen.reset();
    const std::optional<fs::path> labels = flags.labels.empty() ? std::nullopt : std::optional<fs::path>(flags.labels);
    std::optional<int32_t> bos;
    if (options.bos && *options.bos != BosPlacement::none) bos = load_tokenizer(model.checkpoint.folder())->bos();
    data.windows = windows_from_files(flags.token_ids, labels, bos, options, notes);
    data.name = flags.token_ids;
  } else {
    if (!has_data(flags)) refuse("no data: --dataset FILE.txt, --dataset wikitext2, or --token-ids");
    if (!flags.labels.empty()) refuse("--labels {}: for --token-ids only", flags.labels);
    const Text text = read_text(flags, console);
    const auto tokenizer = load_tokenizer(model.checkpoint.folder());
    data.windows = cut_windows(encode(*tokenizer, model.checkpoint.folder(), text), tokenizer->bos(), options, notes);
    data.name = text.name;
    data.origin = text.origin;
  }
  for (const std::string& note : notes) console.note(note);
  check_vocabulary(data.windows, model.config().vocab);
  return data;
}

ResolvedSelection select(const Flags& flags, const Model& model, Unsaid unsaid) {
  SelectionRequest request;
  if (!flags.layers.empty()) request.layers = flags.layers;
  if (flags.num_layers) {
    request.layers = linear_layers(model.config());
    const auto count = static_cast<int64_t>(request.layers.size());
    if (*flags.num_layers > count) {
      refuse("--num-layers {}: a block has only {} linear layers", *flags.num_layers, count);
    }
    request.layers.resize(static_cast<size_t>(*flags.num_layers));
  }
  const int64_t blocks = model.config().blocks;
  if (!flags.block.empty()) request.blocks = flags.block;
  if (flags.num_blocks) {
    if (*flags.num_blocks > blocks) refuse("--num-blocks {}: the model has only {} blocks", *flags.num_blocks, blocks);
    request.blocks = fmt::format("0-{}", *flags.num_blocks - 1);
  }
  request.t = flags.t;
  if (!flags.rows.empty()) request.rows = parse_range("--rows", flags.rows);
  if (!flags.cols.empty()) request.cols = parse_range("--cols", flags.cols);
  if (!flags.indices.empty()) request.indices = read_indices(flags.indices);
  request.random = flags.random;
  request.seed = flags.seed;
  const bool said = request.t || request.rows || request.cols || request.indices || request.random;
  if (!said && unsaid == Unsaid::first_weights) request.t = 5;
  return resolve_selection(model.weights.specs, blocks, request);
}

ExactOptions exact_options(const Flags& flags) {
  ExactOptions options;
  if (flags.curvature == "gauss-newton") options.curvatures = {Curvature::gauss_newton};
  if (flags.curvature == "residual") options.curvatures = {Curvature::residual};
  if (flags.curvature == "all") {
    options.curvatures = {Curvature::hessian, Curvature::gauss_newton, Curvature::residual};
  }
  if (flags.engine == "autograd") {
    options.engine = Engine::autograd;
    if (!flags.pass.empty()) refuse("--pass {}: not with --engine autograd", flags.pass);
    if (flags.directions > 0) refuse("--directions {}: --engine autograd takes one at a time", flags.directions);
    if (flags.primal_precision != "auto") {
      refuse("--primal-precision {}: --engine autograd has --precision only", flags.primal_precision);
    }
  }
  choose_devices(options, flags);
  const bool said = !flags.precision.empty() && flags.precision != "auto";
  if (said) {
    set_tangent_precision(options, "--precision", flags.precision);
    if (options.engine == Engine::autograd && (options.accepted_error || options.products != Products::full))
      refuse("--precision {}: --engine autograd has fp64 and fp32", flags.precision);
  } else if (!options.device.is_cpu() && options.engine == Engine::hesper) {
    accept_error(options, 1e-4);
  }
  if (flags.primal_precision != "auto") {
    options.primal = parse_precision("--primal-precision", flags.primal_precision);
  }
  if (!flags.pass.empty()) options.pass = flags.pass == "gram" ? Pass::gram : Pass::two_pass;
  options.directions = flags.directions;
  options.batch = flags.model_input_bs;
  limit_memory(options, flags);
  options.full_errors = flags.errors == "full";
  return options;
}

void choose_devices(EngineOptions& options, const Flags& flags) {
  const std::vector<at::Device> devices = parse_devices(flags.device, flags.absent);
  options.device = devices[0];
  const int here = gpu_count().value_or(0);
  options.absent = std::any_of(devices.begin(), devices.end(),
                               [&](at::Device device) { return device.is_cuda() && device.index() >= here; });
  options.others.assign(devices.begin() + 1, devices.end());
}

void limit_memory(EngineOptions& options, const Flags& flags) {
  if (flags.memory_limit.empty() && options.absent)
    refuse("--device {}: not on this machine, so its plan needs --memory-limit", flags.device);
  if (flags.memory_limit.empty()) return;
  options.memory_limit = parse_memory("--memory-limit", flags.memory_limit);
  if (options.device.is_cpu() || options.absent) return;
  for (at::Device device : options.devices()) limit_device_memory(device, options.memory_limit);
}

void settle_precision(EngineOptions& options, const Model& model, const Selection& selection, const Windows& windows,
                      Console& console) {
  if (!options.accepted_error) return;
  const std::vector<PrecisionTrial> trials =
      try_precisions(model, selection, windows, options, *options.accepted_error);
  if (trials.empty()) {
    console.note(fmt::format("no room to try precisions within the memory limit: {}, which is usually within {:g}",
                             precision_name(options.precision, options.products), *options.accepted_error));
    return;
  }
  std::vector<std::string> tried;
  for (const auto& [precision, error] : trials)
    tried.push_back(fmt::format("{} {:.1e}", precision_name(precision.working, precision.products), error));
  console.line(fmt::format("precision: {} ({:g} accepted)", fmt::join(tried, ", "), *options.accepted_error));
  options.precision = trials.back().precision.working;
  options.products = trials.back().precision.products;
}

void set_threads(const Flags& flags) {
  if (flags.threads) at::set_num_threads(*flags.threads);
}

std::string say_selection(const ResolvedSelection& selection) {
  const SelectedTensor& first = selection.tensors.at(0);
  const std::string name = first.block < 0 ? first.layer : fmt::format("{} of block {}", first.layer, first.block);
  const size_t others = selection.tensors.size() - 1;
  return others == 0 ? name : fmt::format("{} and {} more tensor{}", name, others, others > 1 ? "s" : "");
}

std::string say_windows(const Windows& windows) {
  const int64_t b = windows.ids.size(0);
  return fmt::format("{} window{} of {} tokens", b, b > 1 ? "s" : "", windows.ids.size(1));
}

std::string say_run(const std::string& model, const ResolvedSelection& selection, const Windows& windows,
                    const std::string& what) {
  return fmt::format("{}: {}{}, n = {}, {}", model, what, say_selection(selection), selection.selection.size(),
                     say_windows(windows));
}

std::string say_plan(const Plan& plan) {
  return fmt::format("{}, {} direction{} at once{}, {} tangents over an {} primal pass",
                     plan.pass == Pass::gram ? "Gram pass" : "two-pass", plan.directions,
                     plan.directions > 1 ? "s" : "", plan.recompute ? ", a block's made twice" : "",
                     precision_name(plan.precision, plan.products), precision_name(plan.primal));
}

std::string say_room(const Plan& plan) {
  return fmt::format("{} of {} allowed{}{}", say_bytes(plan.peak()), say_bytes(plan.limit),
                     plan.streamed ? ", weights streamed" : "", plan.spilled ? ", tape on the host" : "");
}

nlohmann::json plan_event(const Plan& plan) {
  return {{"pass", to_string(plan.pass)},
          {"directions", plan.directions},
          {"recompute", plan.recompute},
          {"streamed", plan.streamed},
          {"spilled", plan.spilled},
          {"precision", precision_name(plan.precision, plan.products)},
          {"primal_precision", precision_name(plan.primal)},
          {"memory", plan.peak()},
          {"units", plan.units}};
}

}  // namespace hesper::cli
