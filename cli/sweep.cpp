#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <stdexcept>

#include "commands.h"
#include "flags.h"
#include "interrupt.h"
#include "processes.h"
#include "refuse.h"
#include "run/exact_files.h"
#include "run/result_files.h"
#include "run/sweep_files.h"
#include "snapshots.h"
#include "values.h"

namespace hesper::cli {
namespace {

struct SweepFlags : Flags {
  std::string of, over = "b", method, truth;
  std::optional<int64_t> probes;
  bool exact = false;
};

/// --for; a sweep over probes can only be one of a diagonal.
bool of_diagonal(const SweepFlags& flags) { return flags.of == "diag" || (flags.of.empty() && flags.over == "probes"); }

void check_flags(const SweepFlags& flags) {
  const bool over_probes = flags.over == "probes";
  const char* of_probes = flags.probes ? "--probes" : !flags.method.empty() ? "--method" : nullptr;
  if (!of_diagonal(flags)) {
    if (over_probes) refuse("--over probes: an exact block has none; --for diag has");
    const char* given = of_probes ? of_probes : flags.exact ? "--exact" : !flags.truth.empty() ? "--truth" : nullptr;
    if (given) refuse("{}: of diagonals; --for diag is missing", given);
    return;
  }
  if (flags.exact && over_probes) refuse("--exact: takes no probes; --truth compares probes with exact entries");
  if (flags.exact && of_probes) refuse("{}: --exact takes no probes", of_probes);
  if (!flags.truth.empty() && !over_probes) refuse("--truth {}: of --over probes", flags.truth);
  if (flags.method == "split" && flags.curvature != "hessian")
    refuse("--method split: not with --curvature {}", flags.curvature);
}

/// The rows of --truth among what is selected.
ResolvedSelection truth_of(const SweepFlags& flags, const Model& model, const ResolvedSelection& selection) {
  if (flags.truth == "all") return selection;
  if (flags.t || flags.random || !flags.indices.empty() || !flags.rows.empty())
    refuse("--truth {}: of a whole layer or its columns; --truth all takes what is selected", flags.truth);
  SweepFlags rows = flags;
  parse_range("--truth", flags.truth);
  rows.rows = flags.truth;
  return select(rows, model);
}

DiagSweep diagonal_options(const SweepFlags& flags, const ExactOptions& engine) {
  DiagSweep sweep;
  static_cast<EngineOptions&>(sweep.options) = engine;
  sweep.options.curvature = engine.curvatures[0];
  sweep.options.method = flags.method == "split" ? DiagMethod::split : DiagMethod::hutchinson;
  sweep.options.probes = flags.probes.value_or(100);
  sweep.options.seed = flags.seed;
  sweep.exact = flags.exact;
  return sweep;
}

EngineOptions& engine_of(SweepJob& job) {
  if (auto* block = std::get_if<ExactOptions>(&job.quantity)) return *block;
  return std::get<DiagSweep>(job.quantity).options;
}

Plan plan_of(const Model& model, const SweepJob& job) {
  if (const auto* block = std::get_if<ExactOptions>(&job.quantity))
    return plan_sweep_exact(model, job.selection.selection, job.windows, *block);
  const auto& diagonal = std::get<DiagSweep>(job.quantity);
  return (job.over == SweepOver::windows ? plan_sweep_over_windows : plan_sweep_over_probes)(model, job.selection,
                                                                                             job.windows, diagonal);
}

SweepResult compute(const Model& model, const SweepJob& job, const RunControl& control) {
  if (const auto* block = std::get_if<ExactOptions>(&job.quantity))
    return sweep_exact(model, job.selection.selection, job.windows, *block, control);
  const auto& diagonal = std::get<DiagSweep>(job.quantity);
  return (job.over == SweepOver::windows ? sweep_diag_over_windows : sweep_diag_over_probes)(
      model, job.selection, job.windows, diagonal, control);
}

void report(Console& console, const SweepJob& job, const SweepResult& r, const Plan& plan, const std::string& base) {
  const auto row = [&](const std::string& head, const std::string& text) {
    console.line(fmt::format("{:<12}{}", head, text));
  };
  row("loss", fmt::format("{:.8g}, perplexity {:.8g} over {}", r.loss, std::exp(r.loss), say_windows(job.windows)));
  row("relative to", fmt::format("{:.4g}, the norm of the {}", r.norm, r.norm_of));
  std::string head = fmt::format("{:>8}", job.over == SweepOver::windows ? "b" : "probes");
  for (const SweepColumn& column : r.columns) head += fmt::format("  {:>18}", column.name);
  row("", head);
  for (size_t i = 0; i < r.points.size(); ++i) {
    std::string line = fmt::format("{:>8}", r.points[i]);
    for (const SweepColumn& column : r.columns) {
      const double value = column.values[i], error = column.errors.empty() ? std::nan("") : column.errors[i];
      const std::string text = std::isfinite(error)   ? fmt::format("{:.4g} +- {:.1g}", value, error)
                               : std::isfinite(value) ? fmt::format("{:.4g}", value)
                                                      : "";
      line += fmt::format("  {:>18}", text);
    }
    row("", line);
  }
  if (r.precision_error) row("precision", fmt::format("{:.1e}", *r.precision_error));
  row("time", fmt::format("{}; {} products, {:.3g} a second", say_seconds(r.seconds), r.products,
                          static_cast<double>(r.products) / r.seconds));
  row("memory", fmt::format("{} at the peak, planned {}", say_bytes(r.peak_memory), say_bytes(plan.peak())));
  row("wrote", base + " .csv .pdf .png .json");
}

void run_sweep(const SweepFlags& flags, const std::vector<std::string>& command_line) {
  Console console(flags.quiet, flags.json);
  set_threads(flags);
  check_snapshots(flags);
  check_flags(flags);
  ExactOptions engine = exact_options(flags);
  catch_interrupts();
  const Model model = open_model(flags, console);
  stop_if_interrupted();
  const Data data = load_data(flags, model, console);
  SweepJob job;
  static_cast<RunJob&>(job) = run_job(flags, model, data, command_line);
  job.selection = select(flags, model, of_diagonal(flags) ? Unsaid::whole_layer : Unsaid::first_weights);
  settle_precision(engine, model, job.selection.selection, data.windows, console);
  job.linear_layers = linear_layers(model.config());
  job.over = flags.over == "probes" ? SweepOver::probes : SweepOver::windows;
  job.seed = flags.seed;
  if (of_diagonal(flags)) {
    DiagSweep sweep = diagonal_options(flags, engine);
    if (!flags.truth.empty()) sweep.truth = truth_of(flags, model, job.selection);
    job.quantity = sweep;
  } else {
    job.quantity = engine;
  }
  stop_if_interrupted();

  // Everything that could refuse the result is met before the long part.
  Plan plan = plan_of(model, job);
  const std::filesystem::path folder = results_folder(flags);
  if (!flags.overwrite && sweep_exists(folder, job)) {
    identify(job, model);
    check_existing(folder, job);
  }
  if (process_rank() == 0) check_writable(folder);
  Snapshots snapshots = open_snapshots(flags, folder, job, model, console);
  const std::unique_ptr<Ranks> ranks = meet_ranks(engine_of(job));
  share_state(ranks.get(), snapshots);
  if (ranks) plan = plan_of(model, job);
  stop_if_interrupted();

  console.line(say_run(job.model_name, job.selection, job.windows));
  console.line(fmt::format("{}; {}", say_plan(plan), say_room(plan)));
  nlohmann::json event = plan_event(plan);
  event.update({{"selection", say_selection(job.selection)}, {"n", job.selection.selection.size()}});
  console.event("plan", std::move(event));
  const auto computed =
      result_of(console, [&] { return compute(model, job, control_of(flags, console, snapshots, ranks.get())); });
  if (!computed) return;
  const SweepResult& result = *computed;
  identify(job, model);
  const std::string base = write_sweep(folder, job, result);
  snapshots.remove();
  report(console, job, result, plan, base);
  console.event("result", {{"file", base},
                           {"loss", result.loss},
                           {"points", result.points},
                           {"norm", result.norm},
                           {"products", result.products},
                           {"seconds", result.seconds},
                           {"peak_memory", result.peak_memory},
                           {"planned_memory", plan.peak()}});
}

}  // namespace

Action add_sweep(CLI::App& app) {
  auto flags = std::make_shared<SweepFlags>();
  add_model(app, *flags);
  add_data(app, *flags);
  add_selection(app, *flags);
  app.add_option("--for", flags->of, "exact (default): a dense block; diag: the diagonal of one layer")
      ->check(CLI::IsMember({"exact", "diag"}));
  app.add_option("--over", flags->over, "b, growing windows; probes, growing probes of each window")
      ->check(CLI::IsMember({"b", "probes"}))
      ->capture_default_str();
  app.add_option("--probes,--vhp-samples", flags->probes, "diag: probes of each window, all of them (100)")
      ->check(CLI::PositiveNumber);
  app.add_option("--method", flags->method, "diag: hutchinson (default) or split")
      ->check(CLI::IsMember({"hutchinson", "split"}));
  app.add_flag("--exact", flags->exact, "diag over b: no probes, every entry exactly");
  app.add_option("--truth", flags->truth,
                 "diag over probes: errors against the exact diagonal of all that is selected (all) or of rows A:B");
  group_options(app, "Sweep");
  app.add_option("--curvature", flags->curvature, "hessian, gauss-newton or residual")
      ->check(CLI::IsMember({"hessian", "gauss-newton", "residual"}))
      ->capture_default_str();
  add_tangents(app, *flags);
  add_device(app, *flags);
  add_threads(app, *flags);
  add_results(app, *flags);
  add_snapshots(app, *flags);
  add_output(app, *flags);
  return [flags](const std::vector<std::string>& command_line) { run_sweep(*flags, command_line); };
}

}  // namespace hesper::cli
