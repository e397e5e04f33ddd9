#include "run/fisher.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <stdexcept>

#include "commands.h"
#include "flags.h"
#include "interrupt.h"
#include "processes.h"
#include "report/pt_file.h"
#include "run/diag.h"
#include "run/exact_files.h"
#include "snapshots.h"
#include "values.h"

namespace hesper::cli {
namespace {

struct FisherFlags : Flags {
  std::string kind;
  std::optional<std::string> draw;
  std::optional<int64_t> probes;
  int64_t group_size = 128;
};

constexpr FisherKind kKinds[] = {FisherKind::batch, FisherKind::sequence, FisherKind::token, FisherKind::gauss_newton,
                                 FisherKind::input_gram};

FisherOptions fisher_options(const FisherFlags& flags) {
  const ExactOptions engine = exact_options(flags);
  FisherOptions options;
  for (const FisherKind kind : kKinds)
    if (to_string(kind) == flags.kind) options.kind = kind;
  if (flags.probes && !is_sampled(options.kind))
    throw std::invalid_argument(fmt::format("--probes {}: --kind {} takes no probes", *flags.probes, flags.kind));
  if (flags.draw && options.kind != FisherKind::gauss_newton)
    throw std::invalid_argument(fmt::format("--draw {}: for --kind gauss-newton only", *flags.draw));
  if (flags.directions > 0 && !is_sampled(options.kind))
    throw std::invalid_argument(
        fmt::format("--directions {}: --kind {} takes no directions", flags.directions, flags.kind));
  options.draw = flags.draw == "labels" ? AdjointStart::Kind::labels : AdjointStart::Kind::factor;
  options.probes = flags.probes.value_or(options.probes);
  options.seed = flags.seed;
  static_cast<EngineOptions&>(options) = engine;
  return options;
}

nlohmann::json configuration(const FisherFlags& flags, const FisherOptions& options) {
  nlohmann::json out = {{"kind", flags.kind},
                        {"precision", precision_name(options.precision, options.products)},
                        {"primal_precision", options.primal ? precision_name(*options.primal) : "auto"},
                        {"group_size", flags.group_size}};
  if (options.kind == FisherKind::batch) out["model_input_bs"] = options.batch;
  if (is_sampled(options.kind)) out["seed"] = options.seed, out["probes"] = options.probes;
  if (options.kind == FisherKind::gauss_newton) out["draw"] = flags.draw.value_or("signs");
  return out;
}

std::string title(FisherKind kind) {
  switch (kind) {
    case FisherKind::batch:
      return "Mean squared batch gradient";
    case FisherKind::sequence:
      return "Mean squared window gradient";
    case FisherKind::token:
      return "Per-token empirical Fisher";
    case FisherKind::gauss_newton:
      return "Gauss-Newton diagonal (Fisher)";
    default:
      return "Mean squared input";
  }
}

void report(Console& console, const DiagonalJob& job, const FisherOptions& options, const DiagonalResult& r,
            const std::string& base) {
  const auto row = [&](const std::string& head, const std::string& text) {
    console.line(fmt::format("{:<12}{}", head, text));
  };
  row("loss", fmt::format("{:.8g}, perplexity {:.8g} over {}", r.loss, std::exp(r.loss), say_windows(job.windows)));
  constexpr size_t most_lines = 12;
  for (size_t i = 0; i < std::min(most_lines, r.tensors.size()); ++i) {
    const SelectedTensor& tensor = job.selection.tensors[i];
    const RelativeBars bars = relative_bars(r.tensors[i].entries);
    const std::string probes =
        is_sampled(options.kind) ? fmt::format("{} from probes, ", say_relative(bars.probe)) : "";
    row(i == 0 ? "diagonal" : "", fmt::format("{}{}: error {}{} from the windows; trace {:.4g}", tensor.layer,
                                              tensor.block < 0 ? "" : fmt::format(" of block {}", tensor.block), probes,
                                              say_relative(bars.data), r.tensors[i].sums.mean[0].item<double>()));
  }
  if (r.tensors.size() > most_lines) row("", fmt::format("and {} more, in the .json", r.tensors.size() - most_lines));
  const DiagonalBars& any = r.tensors[0].entries;
  if (any.groups > 1)
    row("", fmt::format("errors from the windows: spread between {} contiguous groups of the {} {}", any.groups,
                        any.windows, options.kind == FisherKind::batch ? "batches" : "windows"));
  if (options.kind == FisherKind::batch) row("", fmt::format("it depends on --model-input-bs, here {}", options.batch));
  if (r.precision_error) row("precision", fmt::format("{:.1e}, from a window again in fp64", *r.precision_error));
  row("time", say_seconds(r.seconds));
  row("wrote", base + " .pt .pdf .png .csv .json" + (options.kind == FisherKind::input_gram ? " .gram.pt" : ""));
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
                 {"seconds", r.seconds}});
}

/// (1/(b T)) X^T X of each tensor beside its diagonal.
void write_grams(const std::filesystem::path& folder, const DiagonalJob& job, const std::vector<at::Tensor>& grams) {
  for (size_t i = 0; i < grams.size(); ++i) {
    const std::filesystem::path path = with_extension(folder / tensor_name(job, i), ".gram.pt");
    std::filesystem::create_directories(path.parent_path());
    write_pt(path, grams[i].to(job.double_precision ? at::kDouble : at::kFloat));
  }
}

void run_fisher(const FisherFlags& flags, const std::vector<std::string>& command_line) {
  Console console(flags.quiet, flags.json);
  set_threads(flags);
  check_snapshots(flags);
  FisherOptions options = fisher_options(flags);
  catch_interrupts();
  const Model model = open_model(flags, console);
  stop_if_interrupted();
  const Data data = load_data(flags, model, console);
  DiagonalJob job;
  job.selection = select(flags, model, Unsaid::whole_layer);
  settle_precision(options, model, job.selection.selection, data.windows, console);
  stop_if_interrupted();
  job.title = title(options.kind);
  job.method = options.kind == FisherKind::batch ? "fisher" : flags.kind;
  static_cast<RunJob&>(job) = run_job(flags, model, data, command_line);
  job.sums = unit_sums(model, job.selection, flags.group_size);
  job.double_precision = options.precision == at::kDouble;
  job.full_errors = flags.errors == "full";
  job.seed = flags.seed;
  job.configuration = configuration(flags, options);

  // Everything that could refuse the result is met before the long part.
  Plan plan = plan_fisher(model, job.selection, job.sums, job.windows, options);
  const std::filesystem::path folder = results_folder(flags);
  if (!flags.overwrite && diagonal_exists(folder, job)) {
    identify(job, model);
    check_existing(folder, job);
  }
  if (process_rank() == 0) check_writable(folder);
  Snapshots snapshots = open_snapshots(flags, folder, job, model, console);
  const std::unique_ptr<Ranks> ranks = meet_ranks(options);
  share_state(ranks.get(), snapshots);
  if (ranks) plan = plan_fisher(model, job.selection, job.sums, job.windows, options);
  stop_if_interrupted();

  console.line(say_run(job.model_name, job.selection, job.windows, flags.kind + " of "));
  console.line(fmt::format("{}, {}",
                           is_sampled(options.kind)
                               ? fmt::format("{} probes a window, {} at once", options.probes, plan.directions)
                               : "primal passes only",
                           say_room(plan)));
  nlohmann::json event = plan_event(plan);
  event.update({{"selection", say_selection(job.selection)}, {"n", job.selection.selection.size()}});
  console.event("plan", std::move(event));
  const auto computed = result_of(console, [&] {
    return compute_fisher(model, job.selection, job.sums, job.windows, options,
                          control_of(flags, console, snapshots, ranks.get()));
  });
  if (!computed) return;
  const FisherResult& result = *computed;
  identify(job, model);
  write_grams(folder, job, result.grams);
  const std::string base = write_diagonals(folder, job, result.diagonal);
  snapshots.remove();
  report(console, job, options, result.diagonal, base);
  report_event(console, job, result.diagonal, base);
}

}  // namespace

Action add_fisher(CLI::App& app) {
  auto flags = std::make_shared<FisherFlags>();
  add_model(app, *flags);
  add_data(app, *flags);
  add_selection(app, *flags);
  app.add_option(
         "--kind", flags->kind,
         "batch: squared batch gradients; sequence: squared window gradients; token: per-token empirical Fisher; "
         "gauss-newton: the Fisher of the model's own distribution; input-gram: X^T X of the layer's input")
      ->check(CLI::IsMember({"batch", "sequence", "token", "gauss-newton", "input-gram"}))
      ->required();
  app.add_option("--probes,--vhp-samples", flags->probes, "of each window, for token and gauss-newton (100)")
      ->check(CLI::PositiveNumber);
  app.add_option("--draw", flags->draw, "of gauss-newton: signs (default), or labels drawn from the model")
      ->check(CLI::IsMember({"signs", "labels"}));
  app.add_option("--group-size", flags->group_size, "columns of a group in the .csv")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--errors", flags->errors, "summary, or full: the standard errors of every entry too")
      ->check(CLI::IsMember({"summary", "full"}))
      ->capture_default_str();
  group_options(app, "Estimate");
  add_tangents(app, *flags);
  add_device(app, *flags);
  add_threads(app, *flags);
  add_results(app, *flags);
  add_snapshots(app, *flags);
  add_output(app, *flags);
  return [flags](const std::vector<std::string>& command_line) { run_fisher(*flags, command_line); };
}

}  // namespace hesper::cli
