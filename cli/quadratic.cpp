#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <stdexcept>

#include "checkpoint/safetensors.h"
#include "commands.h"
#include "files/digest.h"
#include "flags.h"
#include "hub.h"
#include "interrupt.h"
#include "processes.h"
#include "run/exact_files.h"
#include "run/quadratic_files.h"
#include "run/rank_files.h"
#include "run/result_files.h"
#include "snapshots.h"
#include "values.h"

namespace hesper::cli {
namespace {

namespace fs = std::filesystem;

struct QuadraticFlags : Flags {
  std::string against, basis, group = "layer", actual;
  bool rank = false;
};

std::string last_component(const std::string& text) {
  fs::path path = fs::absolute(text).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

/// The directions, and what they are called.
void name_directions(QuadraticJob& job, const QuadraticFlags& flags, const Model& model, Console& console) {
  if (flags.against.empty() == flags.basis.empty())
    throw std::invalid_argument("one of --against FOLDER and --basis FILE.safetensors is needed");
  if (!flags.basis.empty()) {
    const SafetensorsFile file(flags.basis);
    job.directions = directions_of_basis(model.weights, file);
    job.against = fs::path(flags.basis).stem().string();
    job.against_sha256 = sha256_hex(file.bytes());
    job.group = "basis";
    return;
  }
  const ModelSource source = find_model("--against", flags.against, flags, ModelPart::all, console);
  const Model other = load_model(source.path);
  const Grouping grouping = flags.group == "model"   ? Grouping::model
                            : flags.group == "block" ? Grouping::block
                            : flags.group == "layer" ? Grouping::layer
                                                     : Grouping::tensor;
  job.directions = directions_between(model.weights, other.weights, grouping);
  job.against = last_component(flags.against);
  job.against_origin = source.origin;
  job.against_sha256 = other.checkpoint.sha256();
  job.group = flags.group;
}

std::string bar(double error) { return std::isfinite(error) ? fmt::format(" +- {:.1g}", error) : ""; }

/// The ten costliest directions by every column, and how each column's order agrees with the actual and predicted ones.
void report_ranking(Console& console, const NamedDirections& directions, const std::vector<RankColumn>& ranking) {
  const std::vector<int64_t> order = order_of(ranking[0]);
  const RankColumn &actual = ranking[0], &predicted = ranking[1];
  std::string head =
      fmt::format("{:<12}{:<30}{:>20}{:>20}  place by:", "costliest", "", title_of(actual), title_of(predicted));
  for (size_t c = 1; c < ranking.size(); ++c) head += fmt::format("{:>14}", title_of(ranking[c]));
  console.line(head);
  std::vector<std::vector<int64_t>> places;
  for (const RankColumn& column : ranking) places.push_back(column.places());
  const auto value = [](const RankColumn& column, int64_t k) {
    return fmt::format("{:+.4g}{}", column.mean()[k].item<double>(), bar(column.standard_error()[k].item<double>()));
  };
  for (size_t n = 0; n < std::min<size_t>(10, order.size()); ++n) {
    const auto i = static_cast<size_t>(order[n]);
    std::string row = fmt::format("{:<12}{:>3}. {:<25}{:>20}{:>20}{:>11}", "", n + 1, directions.names[i],
                                  value(actual, order[n]), value(predicted, order[n]), "");
    for (size_t c = 1; c < ranking.size(); ++c)
      row += fmt::format("{:>14}", places[c][i] > 0 ? std::to_string(places[c][i]) : "-");
    console.line(row);
  }
  console.line(fmt::format("{:<12}{:<16}{:>22}{:>22}{:>12}", "Spearman", "", "with actual cost", "with second order",
                           "directions"));
  for (size_t c = 1; c < ranking.size(); ++c) {
    const auto say = [&](const RankColumn& with) {
      const RankCorrelation rho = rank_correlation(ranking[c], with);
      return &with == &ranking[c] ? "" : fmt::format("{:.4f}{}", rho.spearman, bar(rho.error));
    };
    console.line(fmt::format("{:<12}{:<16}{:>22}{:>22}{:>12}", "", title_of(ranking[c]), say(actual), say(predicted),
                             rank_correlation(ranking[c], actual).directions));
  }
}

void report(Console& console, const QuadraticJob& job, const QuadraticResult& r, const std::string& base) {
  const auto row = [&](const char* head, const std::string& text) {
    console.line(fmt::format("{:<12}{}", head, text));
  };
  row("loss", fmt::format("{:.8g}, perplexity {:.8g} over {} windows of {} tokens", r.loss, std::exp(r.loss),
                          job.windows.ids.size(0), job.windows.ids.size(1)));
  console.line(fmt::format("{:<12}{:>8} {:>24} {:>24} {:>12} {:>12}", "change", "e", "predicted", "actual",
                           "predicted P", "actual P"));
  for (const LineStep& s : r.line)
    console.line(fmt::format("{:<12}{:>8} {:>24} {:>24} {:>12.6g} {:>12.6g}", "", fmt::format("{:g}", s.e),
                             fmt::format("{:+.5g}{}", s.predicted, bar(s.predicted_error)),
                             fmt::format("{:+.5g}{}", s.actual, bar(s.actual_error)),
                             std::exp(r.mean_loss + s.predicted), std::exp(r.mean_loss + s.actual)));
  const double own = r.hessian.mean.diagonal().sum().item<double>(), all = r.hessian.mean.sum().item<double>();
  row("parts", fmt::format("first order {:+.5g}, second order {:+.5g}: {:+.5g} of single directions, {:+.5g} of pairs",
                           r.gradient.mean.sum().item<double>(), all, own, all - own));
  row("", fmt::format("Gauss-Newton {:+.5g}, residual {:+.5g}", r.gauss_newton.mean.sum().item<double>(),
                      r.residual.mean.sum().item<double>()));
  const char* head = "pairs";
  for (const Pair& p : largest_pairs(r, 3)) {
    row(head, fmt::format("{} with {}: {:+.4g}{}", job.directions.names[static_cast<size_t>(p.i)],
                          job.directions.names[static_cast<size_t>(p.j)], p.change, bar(p.error)));
    head = "";
  }
  if (!r.ranking.empty()) report_ranking(console, job.directions, r.ranking);
  if (job.windows.ids.size(0) > 1)
    console.line(fmt::format("+-: standard error of the mean over the windows{}",
                             r.ranking.empty() ? "" : "; of a Spearman correlation, by leaving out one at a time"));
  row("time",
      fmt::format("{} ({} primal, {}{} for the actual losses)", say_seconds(r.seconds), say_seconds(r.primal_seconds),
                  r.ranking.empty() ? "" : say_seconds(r.proxy_seconds) + " for the proxies, ",
                  say_seconds(r.actual_seconds)));
  row("memory", fmt::format("{} at the peak", say_bytes(r.peak_memory)));
  row("wrote", base + fmt::format(" .pt .csv .pdf .png .bars.pdf .bars.png{}{} .json .aux.safetensors",
                                  r.line.empty() ? "" : " .line.pdf .line.png",
                                  r.ranking.empty() ? "" : " .rank.csv .rank.pdf .rank.png"));
}

void run_quadratic(const QuadraticFlags& flags, const std::vector<std::string>& command_line) {
  Console console(flags.quiet, flags.json);
  set_threads(flags);
  check_snapshots(flags);
  QuadraticJob job;
  job.options.device = parse_device(flags.device);
  if (!flags.precision.empty()) job.options.precision = parse_precision("--precision", flags.precision);
  if (flags.primal_precision != "auto")
    job.options.primal = parse_precision("--primal-precision", flags.primal_precision);
  job.options.batch = flags.model_input_bs;
  limit_memory(job.options, flags);
  const std::string actual = !flags.actual.empty() ? flags.actual : flags.rank ? "each" : "line";
  if (flags.rank && actual != "each")
    throw std::invalid_argument(
        fmt::format("--rank needs the actual cost of each direction: --actual each, not {}", actual));
  job.options.rank = flags.rank;
  job.options.actual_each = actual == "each";
  if (actual == "none") job.options.steps.clear();
  catch_interrupts();
  const Model model = open_model(flags, console);
  stop_if_interrupted();
  const Data data = load_data(flags, model, console);
  static_cast<RunJob&>(job) = run_job(flags, model, data, command_line);
  name_directions(job, flags, model, console);
  stop_if_interrupted();

  const std::filesystem::path folder = results_folder(flags);
  Plan plan = plan_quadratic(model, job.directions, job.windows, job.options);
  identify(job, model);
  if (!flags.overwrite) check_existing(folder, job);
  if (process_rank() == 0) check_writable(folder);
  Snapshots snapshots = open_snapshots(flags, folder, job, model, console);
  const std::unique_ptr<Ranks> ranks = meet_ranks(job.options);
  share_state(ranks.get(), snapshots);
  if (ranks) plan = plan_quadratic(model, job.directions, job.windows, job.options);
  stop_if_interrupted();
  console.line(fmt::format("{} to {}: {} direction{} by {}, {} windows of {} tokens", job.model_name, job.against,
                           job.directions.count(), job.directions.count() > 1 ? "s" : "", job.group,
                           job.windows.ids.size(0), job.windows.ids.size(1)));
  console.line(fmt::format("{}; {}", say_plan(plan), say_room(plan)));
  nlohmann::json event = plan_event(plan);
  event["group"] = job.group;
  console.event("plan", std::move(event));
  const auto computed = result_of(console, [&] {
    return compute_quadratic(model, job.directions, job.windows, job.options,
                             control_of(flags, console, snapshots, ranks.get()));
  });
  if (!computed) return;
  const QuadraticResult& result = *computed;
  const std::string base = write_quadratic(folder, job, result);
  snapshots.remove();
  report(console, job, result, base);
  console.event(
      "result",
      {{"file", base}, {"loss", result.loss}, {"directions", job.directions.count()}, {"seconds", result.seconds}});
}

}  // namespace

Action add_quadratic(CLI::App& app) {
  auto flags = std::make_shared<QuadraticFlags>();
  add_model(app, *flags);
  add_data(app, *flags);
  app.add_option("--against", flags->against,
                 "a second checkpoint of the same shape, as --model (main of the hub): directions B - A");
  app.add_option("--basis", flags->basis, "safetensors of your own directions, K on the first axis of each parameter");
  app.add_option("--group", flags->group, "one direction for the model, each block, layer or tensor")
      ->check(CLI::IsMember({"model", "block", "layer", "tensor"}))
      ->capture_default_str();
  app.add_option("--actual", flags->actual,
                 "measured losses: line, at 1/8 to 1 of all directions together (default); each, also of each alone "
                 "(default with --rank); none")
      ->check(CLI::IsMember({"line", "each", "none"}));
  app.add_flag("--rank", flags->rank,
               "rank the directions by actual and predicted cost and by the usual proxies; Spearman of each");
  group_options(app, "Directions");
  app.add_option("--precision", flags->precision, "of tangents and of the actual losses: fp32 (default) or fp64");
  app.add_option("--primal-precision", flags->primal_precision, "of the primal pass: fp64 or fp32")
      ->capture_default_str();
  app.add_option("--memory-limit", flags->memory_limit, "such as 16GiB (all that is free)");
  add_device(app, *flags);
  add_threads(app, *flags);
  add_results(app, *flags);
  add_snapshots(app, *flags);
  add_output(app, *flags);
  return [flags](const std::vector<std::string>& command_line) { run_quadratic(*flags, command_line); };
}

}  // namespace hesper::cli
