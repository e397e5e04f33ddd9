#include "run/diag.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <stdexcept>

#include "commands.h"
#include "diag_flags.h"
#include "interrupt.h"
#include "processes.h"
#include "run/exact_files.h"
#include "run/imatrix_file.h"
#include "snapshots.h"
#include "values.h"

namespace hesper::cli {
namespace {

constexpr int64_t kMostProbes = 4096;  // of a run that stops by its error

void refuse_with_exact(const DiagFlags& flags) {
  const char* given = flags.probes ? "--probes" : flags.rel_error ? "--rel-error" : nullptr;
  if (flags.exact && given) throw std::invalid_argument(fmt::format("{}: --exact takes no probes", given));
  if (!flags.rel_error && flags.of != "diagonal")
    throw std::invalid_argument(fmt::format("--of {}: says what --rel-error X is the error of", flags.of));
  if (!flags.rel_error && flags.target != "windows")
    throw std::invalid_argument(fmt::format("--target {}: says when --rel-error X stops", flags.target));
  if (flags.rel_error && !(*flags.rel_error > 0 && *flags.rel_error < 1))
    throw std::invalid_argument(fmt::format("--rel-error {}: a number between 0 and 1 is needed", *flags.rel_error));
  if (flags.rel_error && flags.probes && *flags.probes < least_probes)
    throw std::invalid_argument(fmt::format("--probes {}: --rel-error needs at least {}", *flags.probes, least_probes));
}

}  // namespace

DiagOptions diag_options(const DiagFlags& flags) {
  refuse_with_exact(flags);
  const ExactOptions engine = exact_options(flags);
  DiagOptions options;
  options.curvature = engine.curvatures[0];
  static_cast<EngineOptions&>(options) = engine;
  options.seed = flags.seed;
  options.probes = flags.probes.value_or(flags.rel_error ? kMostProbes : 100);
  if (flags.rel_error) {
    const StopOf of = flags.of == "rows"      ? StopOf::rows
                      : flags.of == "columns" ? StopOf::columns
                      : flags.of == "trace"   ? StopOf::trace
                                              : StopOf::diagonal;
    options.rule = {*flags.rel_error, of, flags.target == "corpus" ? DiagTarget::corpus : DiagTarget::windows};
  }
  if (options.rule && options.accepted_error && (flags.precision.empty() || flags.precision == "auto"))
    accept_error(options, std::max(*options.accepted_error, *flags.rel_error / 10));
  options.method = flags.method == "split"    ? DiagMethod::split
                   : flags.method == "krylov" ? DiagMethod::krylov
                   : flags.method == "auto"   ? DiagMethod::automatic
                                              : DiagMethod::hutchinson;
  if (flags.exact && options.method != DiagMethod::hutchinson)
    throw std::invalid_argument(fmt::format("--method {}: not with --exact", flags.method));
  options.scope = flags.probe_scope == "joint"  ? ProbeScope::joint
                  : flags.probe_scope == "auto" ? ProbeScope::automatic
                                                : ProbeScope::layer;
  return options;
}

namespace {

/// "vhp_samples100" is the reference's name for a number of probes.
std::string method_name(const DiagFlags& flags, const DiagOptions& options) {
  std::string name = flags.exact ? "exact"
                     : options.rule
                         ? fmt::format("rel_error{:g}_{}", options.rule->rel_error, to_string(options.rule->of))
                         : fmt::format("vhp_samples{}", options.probes);
  if (options.rule && options.rule->target == DiagTarget::corpus) name += "_corpus";
  if (options.method != DiagMethod::hutchinson) name += "_" + to_string(options.method);
  if (options.scope != ProbeScope::layer) name += "_" + to_string(options.scope);
  if (options.curvature != Curvature::hessian) name += "_" + to_string(options.curvature);
  return name;
}

std::string title(const DiagFlags& flags, const DiagOptions& options) {
  const std::string what = options.curvature == Curvature::hessian        ? "Hessian diagonal"
                           : options.curvature == Curvature::gauss_newton ? "Gauss-Newton diagonal"
                                                                          : "Diagonal of the residual H - G";
  if (flags.exact) return "Exact " + what;
  if (options.rule) return fmt::format("{} to {:g}%", what, 100 * options.rule->rel_error);
  return fmt::format("{}, {} probe{} a window", what, options.probes, options.probes > 1 ? "s" : "");
}

nlohmann::json configuration(const DiagFlags& flags, const DiagOptions& options) {
  nlohmann::json out = {{"curvature", to_string(options.curvature)},
                        {"precision", precision_name(options.precision, options.products)},
                        {"primal_precision", options.primal ? precision_name(*options.primal) : "auto"},
                        {"method", flags.exact ? "exact" : flags.method},
                        {"group_size", flags.group_size}};
  if (flags.exact) return out;
  out["seed"] = options.seed;
  out["probes"] = options.probes;
  out["probe_scope"] = to_string(options.scope);
  if (options.rule) {
    out["rel_error"] = options.rule->rel_error;
    out["of"] = to_string(options.rule->of);
    out["target"] = to_string(options.rule->target);
  }
  return out;
}

void report(Console& console, const DiagonalJob& job, const DiagonalResult& r, const std::string& base) {
  const auto row = [&](const std::string& head, const std::string& text) {
    console.line(fmt::format("{:<12}{}", head, text));
  };
  row("loss", fmt::format("{:.8g}, perplexity {:.8g} over {}", r.loss, std::exp(r.loss), say_windows(job.windows)));
  const bool exact = !r.notes.contains("probe_scope");
  constexpr size_t most_lines = 12;
  for (size_t i = 0; i < std::min(most_lines, r.tensors.size()); ++i) {
    const TensorDiagonal& d = r.tensors[i];
    const SelectedTensor& tensor = job.selection.tensors[i];
    const RelativeBars bars = relative_bars(d.entries), trace = relative_bars(d.sums, 0, 1);
    const std::string where =
        tensor.block < 0 ? tensor.layer : fmt::format("{} of block {}", tensor.layer, tensor.block);
    const auto errors = [&](const RelativeBars& of) {
      return (exact ? "" : say_relative(of.probe) + " from probes, ") + say_relative(of.data) + " from the windows";
    };
    row(i == 0 ? "diagonal" : "", fmt::format("{}: error {}, {:.0f}% of entries negative", where, errors(bars),
                                              100 * d.entries.mean.lt(0).to(at::kDouble).mean().item<double>()));
    row("", fmt::format("trace {:.4g}: error {}", d.sums.mean[0].item<double>(), errors(trace)));
    if (d.notes.contains("choice")) row("", d.notes["choice"]["why"].get<std::string>());
    if (d.notes.contains("basis"))
      row("", fmt::format("{} vectors deflated by {} products a window, then {} probes",
                          d.notes["basis"]["vectors"].get<int64_t>(), d.notes["basis"]["products"].get<int64_t>(),
                          d.entries.samples));
    if (d.notes.contains("stop"))
      row("", fmt::format("{} probes a window; {}", d.entries.samples, d.notes["stop"].get<std::string>()));
  }
  if (r.tensors.size() > most_lines) row("", fmt::format("and {} more, in the .json", r.tensors.size() - most_lines));
  if (const int64_t groups = r.tensors[0].entries.groups; groups > 1)
    row("", fmt::format("errors from the windows: spread between {} contiguous groups of the {} windows", groups,
                        r.tensors[0].entries.windows));
  if (r.precision_error)
    row("precision", fmt::format("{:.1e}, from a few {} of one window again in fp64", *r.precision_error,
                                 exact ? "entries" : "probes"));
  if (r.notes.contains("pilot")) row("probe scope", r.notes["probe_scope"].get<std::string>() + ", by the pilot");
  row("time", fmt::format("{}; {} products, {:.3g} a second", say_seconds(r.seconds), r.products,
                          static_cast<double>(r.products) / r.seconds));
  const auto& plan = r.notes.at("plan");
  row("memory", fmt::format("{} at the peak, planned {}", say_bytes(r.peak_memory),
                            say_bytes(plan["planned_memory"].get<int64_t>())));
  const bool several = r.tensors.size() > 1;
  row("wrote", fmt::format("{} {}.pdf .png{} .csv .json", base, several ? "" : ".pt ",
                           several || job.full_errors ? " .safetensors" : ""));
  if (several) row("", "and .pt .pdf .png .json of each in the folders of their blocks");
}

void report_event(Console& console, const DiagonalJob& job, const DiagonalResult& r, const std::string& base) {
  nlohmann::json tensors = nlohmann::json::array();
  const auto number = [](const Bar& bar) {
    return bar.known() ? nlohmann::json(bar.value) : nlohmann::json(to_string(bar.state));
  };
  for (size_t i = 0; i < r.tensors.size(); ++i) {
    const RelativeBars bars = relative_bars(r.tensors[i].entries);
    tensors.push_back({{"tensor", job.selection.tensors[i].name},
                       {"samples", r.tensors[i].entries.samples},
                       {"probe_error", number(bars.probe)},
                       {"data_error", number(bars.data)},
                       {"trace", r.tensors[i].sums.mean[0].item<double>()}});
  }
  console.event("result",
                {{"file", base},
                 {"loss", r.loss},
                 {"perplexity", std::exp(r.loss)},
                 {"tensors", tensors},
                 {"precision_error", r.precision_error ? nlohmann::json(*r.precision_error) : nlohmann::json()},
                 {"products", r.products},
                 {"seconds", r.seconds}});
}

void export_imatrix(Console& console, const DiagonalJob& job, const DiagonalResult& result, const std::string& file) {
  const ImatrixColumns columns = write_imatrix(file, job, result);
  console.line(fmt::format("{:<12}{}, for llama-quantize --imatrix", "", file));
  if (columns.raised > 0) {
    console.note(
        fmt::format("{} of {} columns had a sum below {:g} of their layer's mean positive one and were given that",
                    columns.raised, columns.columns, least_importance));
  }
  for (const std::string& tensor : columns.left_out) {
    console.note(fmt::format("{}: no column has a positive sum; left out of the importance matrix", tensor));
  }
  console.event(
      "imatrix",
      {{"file", file}, {"columns", columns.columns}, {"raised", columns.raised}, {"left_out", columns.left_out}});
}

void run_diag(const DiagFlags& flags, const std::vector<std::string>& command_line) {
  Console console(flags.quiet, flags.json);
  set_threads(flags);
  check_snapshots(flags);
  DiagOptions options = diag_options(flags);
  catch_interrupts();
  const Model model = open_model(flags, console);
  stop_if_interrupted();
  const Data data = load_data(flags, model, console);
  DiagonalJob job;
  job.selection = select(flags, model, Unsaid::whole_layer);
  settle_precision(options, model, job.selection.selection, data.windows, console);
  stop_if_interrupted();
  job.title = title(flags, options);
  job.method = method_name(flags, options);
  static_cast<RunJob&>(job) = run_job(flags, model, data, command_line);
  job.sums = unit_sums(model, job.selection, flags.group_size);
  job.double_precision = options.precision == at::kDouble;
  job.full_errors = flags.errors == "full";
  job.seed = flags.seed;
  job.configuration = configuration(flags, options);
  if (!flags.export_as.empty()) check_imatrix(job);

  // Everything that could refuse the result is met before the long part.
  if (options.rule)
    for (size_t i = 0; i < job.sums.size(); ++i)
      check_rule(*options.rule, job.sums[i], job.selection.tensors[i].name, job.windows.ids.size(0));
  const auto forecast = flags.exact                               ? plan_exact_diag
                        : options.method == DiagMethod::automatic ? plan_auto_diag
                                                                  : plan_diag;
  Plan plan = forecast(model, job.selection, job.sums, job.windows, options);
  const std::filesystem::path folder = results_folder(flags);
  if (!flags.overwrite && diagonal_exists(folder, job)) {
    identify(job, model);
    check_existing(folder, job);
  }
  if (process_rank() == 0) check_writable(folder);
  Snapshots snapshots = open_snapshots(flags, folder, job, model, console);
  const std::unique_ptr<Ranks> ranks = meet_ranks(options);
  share_state(ranks.get(), snapshots);
  if (ranks) plan = forecast(model, job.selection, job.sums, job.windows, options);
  stop_if_interrupted();

  console.line(say_run(job.model_name, job.selection, job.windows));
  console.line(fmt::format("{}; {}", say_plan(plan), say_room(plan)));
  nlohmann::json event = plan_event(plan);
  event.update({{"selection", say_selection(job.selection)}, {"n", job.selection.selection.size()}});
  console.event("plan", std::move(event));
  const RunControl control = control_of(flags, console, snapshots, ranks.get());
  const auto computed = result_of(console, [&] {
    if (flags.exact) return compute_exact_diag(model, job.selection, job.sums, job.windows, options, control);
    if (options.method == DiagMethod::automatic)
      return compute_auto_diag(model, job.selection, job.sums, job.windows, options, control);
    return compute_diag(model, job.selection, job.sums, job.windows, options, control);
  });
  if (!computed) return;
  const DiagonalResult& result = *computed;
  identify(job, model);
  const std::string base = write_diagonals(folder, job, result);
  snapshots.remove();
  report(console, job, result, base);
  report_event(console, job, result, base);
  if (!flags.export_as.empty()) export_imatrix(console, job, result, base + ".imatrix.gguf");
}

}  // namespace

void add_estimate(CLI::App& app, DiagFlags& flags) {
  app.add_option("--probes,--vhp-samples", flags.probes,
                 "products of each window (100); with --rel-error at most (4096)")
      ->check(CLI::PositiveNumber);
  app.add_option("--rel-error", flags.rel_error, "stop once the relative error bar is so small, such as 0.1");
  app.add_option("--of", flags.of, "whose error: diagonal, rows, columns (sums) or trace")
      ->check(CLI::IsMember({"diagonal", "rows", "columns", "trace"}))
      ->capture_default_str();
  app.add_option("--target", flags.target,
                 "windows: error against these windows; corpus: against the text, until more windows are needed")
      ->check(CLI::IsMember({"windows", "corpus"}))
      ->capture_default_str();
  app.add_option("--method", flags.method,
                 "hutchinson; split: Gauss-Newton part by squares, residual by probes; krylov: large couplings by "
                 "block Lanczos, the rest by probes; auto: by a pilot, or exact where that is cheapest")
      ->check(CLI::IsMember({"hutchinson", "split", "krylov", "auto"}))
      ->capture_default_str();
  app.add_option("--probe-scope", flags.probe_scope, "layer: own probes a layer; joint: through all; auto: by a pilot")
      ->check(CLI::IsMember({"layer", "joint", "auto"}))
      ->capture_default_str();
  app.add_flag("--exact", flags.exact, "no probes: every entry exactly, for these windows");
  group_options(app, "Estimate");
}

Action add_diag(CLI::App& app) {
  auto flags = std::make_shared<DiagFlags>();
  add_model(app, *flags);
  add_data(app, *flags);
  add_selection(app, *flags);
  add_estimate(app, *flags);
  app.add_option("--group-size", flags->group_size, "columns of a group in the .csv")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--errors", flags->errors, "summary, or full: the standard errors of every entry too")
      ->check(CLI::IsMember({"summary", "full"}))
      ->capture_default_str();
  group_options(app, "Estimate");
  app.add_option("--curvature", flags->curvature, "hessian, gauss-newton or residual")
      ->check(CLI::IsMember({"hessian", "gauss-newton", "residual"}))
      ->capture_default_str();
  add_tangents(app, *flags);
  add_device(app, *flags);
  add_threads(app, *flags);
  add_results(app, *flags);
  app.add_option("--export", flags->export_as, "imatrix: the column sums also as an importance matrix of llama.cpp")
      ->check(CLI::IsMember({"imatrix"}));
  add_snapshots(app, *flags);
  add_output(app, *flags);
  return [flags](const std::vector<std::string>& command_line) { run_diag(*flags, command_line); };
}

}  // namespace hesper::cli
