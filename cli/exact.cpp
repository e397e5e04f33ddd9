#include <fmt/format.h>
#include <malloc.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <stdexcept>

#include "commands.h"
#include "flags.h"
#include "interrupt.h"
#include "processes.h"
#include "run/exact_files.h"
#include "snapshots.h"
#include "values.h"

namespace hesper::cli {
namespace {

struct ExactFlags : Flags {
  std::string objective = "cross-entropy";
  bool each_layer = false;
};

std::vector<std::string> error_lines(const ExactResult& result) {
  std::vector<std::string> lines;
  if (result.precision_error) {
    lines.push_back(fmt::format("precision {:.1e}, from {} column{} of one window again in fp64",
                                *result.precision_error, result.precision_columns,
                                result.precision_columns > 1 ? "s" : ""));
  } else {
    lines.push_back(fmt::format("precision {}", result.precision_note));
  }
  for (const ExactBlock& block : result.blocks) {
    const std::string of = result.blocks.size() > 1 ? " of the " + to_string(block.kind) : "";
    lines.push_back(block.symmetry_error ? fmt::format("symmetry{} {:.1e}", of, *block.symmetry_error)
                                         : fmt::format("symmetry{}: symmetric by construction", of));
    lines.push_back(
        block.data_error
            ? fmt::format("data{} {:.2g} of its norm: standard error over the windows; exact for these windows only",
                          of, *block.data_error)
            : fmt::format("data{} unknown (one window gives no standard error); exact for these windows only", of));
  }
  return lines;
}

void report(Console& console, const ExactJob& job, const ExactResult& r, const std::vector<WrittenResult>& written) {
  const auto row = [&](const char* head, const std::string& text) {
    console.line(fmt::format("{:<14}{}", head, text));
  };
  const int64_t n = job.selection.selection.size();
  row("loss", fmt::format("{:.8g}, perplexity {:.8g} over {}", r.loss, std::exp(r.loss), say_windows(job.windows)));
  row("gradient", fmt::format("norm {:.4g} over the {} weights", r.gradient.norm().item<double>(), n));
  for (const WrittenResult& w : written) {
    const size_t place = static_cast<size_t>(&w - written.data());
    const std::string kind = to_string(r.blocks[place].kind);
    row(kind.c_str(), fmt::format("{} x {}, Frobenius norm {:.4g}", n, n, w.norm));
    if (!w.spectrum) continue;
    const Spectrum& s = *w.spectrum;
    row("", fmt::format("eigenvalues {:.4g} to {:.4g}, negative ones {:.3g}% of its squared norm", s.smallest,
                        s.largest, 100 * s.negative_share));
    row("", fmt::format("{} of {} diagonal entries negative, effective rank {:.1f}", s.negative_diagonal, s.n,
                        s.effective_rank));
  }
  const char* head = "errors";
  for (const std::string& line : error_lines(r)) row(head, line), head = "";
  row("time", fmt::format("{} ({} primal) and {} for the precision; {} products, {:.3g} a second",
                          say_seconds(r.seconds), say_seconds(r.primal_seconds), say_seconds(r.precision_seconds),
                          r.products, static_cast<double>(r.products) / r.seconds));
  const std::string peak = say_bytes(r.peak_memory) + " at the peak";
  row("memory", job.options.engine == Engine::autograd ? peak : peak + ", planned " + say_bytes(r.plan.peak()));
  for (const WrittenResult& w : written) row("wrote", w.base + " .pt .pdf .png .json .aux.safetensors");
}

void report_events(Console& console, const ExactJob& job, const ExactResult& r,
                   const std::vector<WrittenResult>& written) {
  for (size_t i = 0; i < written.size(); ++i) {
    const ExactBlock& block = r.blocks[i];
    const auto number = [](const std::optional<double>& x) { return x ? nlohmann::json(*x) : nlohmann::json(); };
    console.event("result",
                  {{"file", written[i].base},
                   {"curvature", to_string(block.kind)},
                   {"loss", r.loss},
                   {"perplexity", std::exp(r.loss)},
                   {"gradient_norm", r.gradient.norm().item<double>()},
                   {"norm", written[i].norm},
                   {"precision_error", number(i == 0 ? r.precision_error : std::nullopt)},
                   {"symmetry_error", number(block.symmetry_error)},
                   {"data_error", number(block.data_error)},
                   {"products", r.products},
                   {"seconds", r.seconds},
                   {"peak_memory", r.peak_memory},
                   {"planned_memory",
                    job.options.engine == Engine::autograd ? nlohmann::json() : nlohmann::json(r.plan.peak())}});
  }
}

void run_exact(const ExactFlags& flags, const std::vector<std::string>& command_line) {
  Console console(flags.quiet, flags.json);
  set_threads(flags);
  ExactOptions options = exact_options(flags);
  if (options.full_errors && flags.objective == "perplexity") {
    throw std::invalid_argument("--errors full: standard errors are known for --objective cross-entropy only");
  }
  check_snapshots(flags);
  if (flags.each_layer && !flags.parts.empty())
    throw std::invalid_argument(
        "--each-layer: not with --parts; give the layers one by one, or share the run among ranks (hesper launch)");
  catch_interrupts();
  const Model model = open_model(flags, console);
  stop_if_interrupted();
  const Data data = load_data(flags, model, console);
  const ResolvedSelection selection = select(flags, model);
  settle_precision(options, model, selection.selection, data.windows, console);
  stop_if_interrupted();

  const std::filesystem::path folder = results_folder(flags);
  std::vector<ExactJob> jobs;
  for (const ResolvedSelection& part :
       flags.each_layer ? split_by_tensor(selection) : std::vector<ResolvedSelection>{selection}) {
    ExactJob job;
    static_cast<RunJob&>(job) = run_job(flags, model, data, command_line);
    job.selection = part;
    job.linear_layers = linear_layers(model.config());
    job.options = options;
    job.objective = flags.objective == "perplexity" ? Objective::perplexity : Objective::cross_entropy;
    job.seed = flags.seed;
    plan_exact(model, part.selection, data.windows, options);
    jobs.push_back(std::move(job));
  }
  // Everything that could refuse the results is met before the long part.
  for (ExactJob& job : jobs) {
    if (flags.overwrite || !exact_exists(folder, job)) continue;
    identify(job, model);
    check_existing(folder, job);
  }
  if (process_rank() == 0) check_writable(folder);
  std::vector<Snapshots> snapshots;
  for (ExactJob& job : jobs) snapshots.push_back(open_snapshots(flags, folder, job, model, console));
  stop_if_interrupted();

  const std::unique_ptr<Ranks> ranks = meet_ranks(options);
  for (ExactJob& job : jobs) {
    Snapshots& snapshot = snapshots[static_cast<size_t>(&job - jobs.data())];
    share_state(ranks.get(), snapshot);
    static_cast<EngineOptions&>(job.options) = options;
    RunControl control = control_of(flags, console, snapshot, ranks.get());
    control.more = &job != &jobs.back();
    malloc_trim(0);  // buffers kept from the job before would stand in this one's peak
    const Plan plan = plan_exact(model, job.selection.selection, job.windows, resumed_options(job.options, control));
    console.line(say_run(job.model_name, job.selection, job.windows));
    console.line(options.engine == Engine::autograd
                     ? fmt::format("autograd, one direction at a time, {}", precision_name(options.precision))
                     : fmt::format("{}; {}", say_plan(plan), say_room(plan)));
    nlohmann::json event = {{"precision", precision_name(plan.precision, plan.products)}};
    if (options.engine == Engine::hesper) event = plan_event(plan);
    event.update({{"selection", say_selection(job.selection)},
                  {"n", job.selection.selection.size()},
                  {"windows", job.windows.ids.size(0)},
                  {"seqlen", job.windows.ids.size(1)},
                  {"engine", options.engine == Engine::autograd ? "autograd" : "hesper"}});
    console.event("plan", std::move(event));
    const auto computed = result_of(
        console, [&] { return compute_exact(model, job.selection.selection, job.windows, job.options, control); });
    if (!computed) continue;
    const ExactResult& result = *computed;
    identify(job, model);
    const std::vector<WrittenResult> written = write_exact(folder, job, result);
    snapshot.remove();
    report(console, job, result, written);
    report_events(console, job, result, written);
  }
}

}  // namespace

Action add_exact(CLI::App& app) {
  auto flags = std::make_shared<ExactFlags>();
  add_model(app, *flags);
  add_data(app, *flags);
  add_selection(app, *flags);
  app.add_flag("--each-layer", flags->each_layer, "one result a layer instead of one with all cross terms");
  app.add_option("--objective", flags->objective, "cross-entropy, or perplexity: P (H + g g^T)")
      ->check(CLI::IsMember({"cross-entropy", "perplexity"}))
      ->capture_default_str();
  group_options(app, "Selection");
  add_exact_engine(app, *flags);
  add_results(app, *flags);
  add_snapshots(app, *flags);
  add_output(app, *flags);
  return [flags](const std::vector<std::string>& command_line) { run_exact(*flags, command_line); };
}

}  // namespace hesper::cli
