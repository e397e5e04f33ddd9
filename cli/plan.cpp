#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <stdexcept>

#include "commands.h"
#include "diag_flags.h"
#include "ops/tier_products.h"
#include "run/clock.h"
#include "run/exact_files.h"
#include "run/pilot.h"
#include "values.h"

namespace hesper::cli {
namespace {

// GFLOP/s of a matrix product here and now: the best of a few.
double product_rate(at::ScalarType precision, Products products, at::Device device) {
  const int64_t m = device.is_cpu() ? 768 : 8192;
  const auto kind = at::TensorOptions(precision).device(device);
  const at::Tensor a = at::randn({m, m}, kind), b = at::randn({m, m}, kind);
  double best = 1e9;
  for (int i = 0; i < 6; ++i) {
    const Clock::time_point begin = Clock::now();
    times(a, b, products)[0][0].item();  // waits for a device
    best = std::min(best, seconds_since(begin));
  }
  return 2.0 * static_cast<double>(m * m * m) / best / 1e9;
}

// Windows of the shape that was asked for; what the ids are changes nothing in a plan.
Windows blank_windows(const Flags& flags, const ModelConfig& config, Console& console) {
  WindowOptions options = window_options(flags, config);
  const int64_t b = flags.b.value_or(30);
  std::vector<std::string> notes;
  if (!options.seqlen) options.seqlen = std::min<int64_t>(2048, config.max_positions);
  options.b = b;
  options.bos = BosPlacement::none;
  const int64_t tokens = *options.seqlen;
  if (tokens < 2 || tokens > 1 << 24 || b < 1 || b > 1 << 20) {
    throw std::invalid_argument(fmt::format("--seqlen {} --b {}: no such windows", tokens, b));
  }
  const std::vector<int32_t> ids(static_cast<size_t>(tokens * b), 0);
  console.note("no data given: the forecast is for full windows");
  return cut_windows(ids, std::nullopt, options, notes);
}

struct PlanFlags : DiagFlags {
  std::string run = "exact";
  int64_t ranks = 1;
  std::optional<double> time_per_product;
  bool pilot = false;
};

void check_flags(const PlanFlags& flags) {
  const auto refuse = [&](const std::string& flag, const char* of) {
    throw std::invalid_argument(fmt::format("{}: of {}, but --for is {}", flag, of, flags.run));
  };
  if (flags.run == "exact") {
    const std::pair<const char*, bool> given[] = {{"--probes", flags.probes.has_value()},
                                                  {"--rel-error", flags.rel_error.has_value()},
                                                  {"--method", flags.method != "hutchinson"},
                                                  {"--probe-scope", flags.probe_scope != "layer"},
                                                  {"--exact", flags.exact}};
    for (const auto& [flag, said] : given)
      if (said) refuse(flag, "diagonals");
    return;
  }
  if (!flags.pass.empty()) refuse("--pass " + flags.pass, "exact blocks");
  if (flags.engine != "hesper") refuse("--engine " + flags.engine, "exact blocks");
  if (flags.curvature == "all") refuse("--curvature all", "exact blocks");
}

struct Forecast {
  Plan plan;
  std::string what;     // the products that the plan is for
  double products = 0;  // of a window
};

Forecast forecast(const PlanFlags& flags, const Model& model, const ResolvedSelection& selection,
                  const Windows& windows) {
  if (flags.run == "exact")
    return {plan_exact(model, selection.selection, windows, exact_options(flags)), "",
            static_cast<double>(selection.selection.size())};
  const DiagOptions options = diag_options(flags);
  const std::vector<UnitSums> sums = unit_sums(model, selection, flags.group_size);
  if (flags.exact) {
    double tangents = 0;
    for (const ExactCost& cost : exact_costs(model, selection, windows, options)) tangents += cost.directions;
    return {plan_exact_diag(model, selection, sums, windows, options),
            "rows of linear layers by at most a tangent for each token, other entries by one each", tangents};
  }
  std::string what = fmt::format("{} probes of each window, by {}", options.probes, to_string(options.method));
  if (options.rule)
    what = fmt::format("100 probes of each window; --rel-error {:g} takes what it needs", *flags.rel_error);
  const int64_t each = options.rule ? std::min<int64_t>(options.probes, 100) : options.probes;
  const auto groups = options.scope == ProbeScope::joint ? 1 : selection.tensors.size();
  return {plan_diag(model, selection, sums, windows, options), what,
          static_cast<double>(each) * static_cast<double>(groups)};
}

struct Duration {
  std::optional<double> seconds;
  std::string by;  // in words
  const char* from = "";
};

/// Of the whole run in one process.
Duration duration_of(const PlanFlags& flags, const EngineOptions& options, const Model& model,
                     const ResolvedSelection& selection, const Windows& windows, const Forecast& run) {
  const Plan& plan = run.plan;
  const auto b = static_cast<double>(windows.ids.size(0));
  if (flags.time_per_product)
    return {b * run.products * *flags.time_per_product,
            fmt::format("at {:g} s a product, as given", *flags.time_per_product), "given"};
  if (flags.pilot) {
    const bool alone = flags.run == "diag" && flags.probe_scope != "joint";  // each layer has its own products
    const Selection some = alone ? split_by_tensor(selection)[0].selection : selection.selection;
    const Pilot pilot = run_pilot(model, some, windows, options, plan);
    return {b * (pilot.primal + run.products * pilot.product),
            fmt::format("by a pilot: {:.3g} s for the primal pass of a window, {:.3g} s a product", pilot.primal,
                        pilot.product),
            "pilot"};
  }
  if (options.absent) return {std::nullopt, "unknown: the GPU is not here, and no --time-per-product is given", ""};
  const bool measured = plan.precision == plan.primal && plan.products == Products::full;
  const double tangent_rate = product_rate(plan.precision, plan.products, options.device);
  const double primal_rate = measured ? tangent_rate : product_rate(plan.primal, Products::full, options.device);
  return {plan.primal_flops / (primal_rate * 1e9) + plan.tangent_flops / (tangent_rate * 1e9),
          fmt::format("if all of it ran as fast as a matrix product does here ({:.0f} GFLOP/s in {})", tangent_rate,
                      precision_name(plan.precision, plan.products)),
          "matrix product"};
}

/// The model, or where no weights are there its shape.
Model open_shape(const PlanFlags& flags, Console& console) {
  if (!is_shape(flags.model)) return open_model(flags, console);
  if (flags.pilot)
    throw std::invalid_argument(
        fmt::format("--pilot: {} has a config.json and no weights to measure with", flags.model));
  console.note(fmt::format("no weights in {}: the shapes of its config.json", flags.model));
  return load_shape(flags.model);
}

void run_plan(const PlanFlags& flags) {
  Console console(flags.quiet, flags.json);
  set_threads(flags);
  check_flags(flags);
  if (flags.pilot && flags.exact) throw std::invalid_argument("--pilot: not of --exact, whose tangents differ");
  const ExactOptions options = exact_options(flags);
  if (flags.pilot && options.absent)
    throw std::invalid_argument(fmt::format("--pilot: --device {} is not on this machine", flags.device));
  const Model model = open_shape(flags, console);
  const Windows windows =
      has_data(flags) ? load_data(flags, model, console).windows : blank_windows(flags, model.config(), console);
  const ResolvedSelection selection =
      select(flags, model, flags.run == "exact" ? Unsaid::first_weights : Unsaid::whole_layer);
  const Forecast run = forecast(flags, model, selection, windows);
  const Plan& plan = run.plan;

  const int64_t batches = (windows.ids.size(0) + plan.batch - 1) / plan.batch;
  if (flags.ranks > batches)
    throw std::invalid_argument(
        fmt::format("--ranks {}: there are only {} batches of windows to share", flags.ranks, batches));
  // The rank with the most batches ends last.
  const int64_t most = (batches + flags.ranks - 1) / flags.ranks;
  const double share = static_cast<double>(most) / static_cast<double>(batches);

  const Duration time = duration_of(flags, options, model, selection, windows, run);

  const auto row = [&](const char* head, const std::string& text) {
    console.result(fmt::format("{:<12}{}", head, text));
  };
  row("run", say_run(model_name(flags), selection, windows));
  row("pass", fmt::format("{}, {} window{} a pass, {} unit{}", say_plan(plan), plan.batch, plan.batch > 1 ? "s" : "",
                          plan.units, plan.units > 1 ? "s" : ""));
  row("", say_room(plan));
  if (!run.what.empty()) row("", run.what);
  const Memory& m = plan.memory;
  const std::pair<const char*, int64_t> parts[] = {
      {"library", m.library}, {"weights", m.weights},   {"result", m.result}, {"primal", m.primal},
      {"tape", m.tape},       {"tangents", m.tangents}, {"cuts", m.cuts},     {"attention", m.attention}};
  nlohmann::json memory;
  const char* head = "memory";
  for (const auto& [name, bytes] : parts) {
    row(head, fmt::format("{:<10}{:>10}", name, say_bytes(bytes)));
    memory[name] = bytes, head = "";
  }
  row("", fmt::format("{:<10}{:>10} of {} allowed: the first three, and primal or tape, tangents and one of the last",
                      "total", say_bytes(m.total()), say_bytes(plan.limit)));
  if (plan.by_device.size() > 1) {
    std::vector<std::string> each;
    for (size_t i = 0; i < plan.by_device.size(); ++i)
      each.push_back(fmt::format("{} {}", options.devices()[i].str(), say_bytes(plan.by_device[i].total())));
    row("devices", fmt::format("{} (above: the fullest)", fmt::join(each, ", ")));
  }
  if (plan.measure_precision) {
    row("", fmt::format("{:<10}{:>10} after that, for a few columns again in fp64", "check",
                        say_bytes(plan.check.total())));
  }
  if (plan.writing > 0)
    row("",
        fmt::format("{:<10}{:>10} while the result and its spectrum are written", "writing", say_bytes(plan.writing)));
  row("arithmetic", fmt::format("{} primal, {} tangents", say_flops(plan.primal_flops), say_flops(plan.tangent_flops)));
  row("products", fmt::format("{:.6g} of {} windows each, {:.6g} in all", run.products, windows.ids.size(0),
                              run.products * static_cast<double>(windows.ids.size(0))));
  row("time", time.seconds ? fmt::format("{} {}", say_seconds(*time.seconds), time.by) : time.by);
  if (flags.ranks > 1) {
    row("ranks",
        fmt::format("{}: at most {} of {} batches of windows each, so {:.3g} of the work{}", flags.ranks, most, batches,
                    share, time.seconds ? " and of that time: " + say_seconds(share * *time.seconds) : ""));
    row("", fmt::format("each takes the memory above ({} where all are on one host) and hands over its sums at the end",
                        say_bytes(flags.ranks * plan.peak())));
  }
  memory["total"] = m.total();
  memory["check"] = plan.check.total();
  memory["writing"] = plan.writing;
  nlohmann::json event = plan_event(plan);
  event.update({{"for", flags.run},
                {"selection", say_selection(selection)},
                {"n", selection.selection.size()},
                {"windows", windows.ids.size(0)},
                {"seqlen", windows.ids.size(1)},
                {"model_input_bs", plan.batch},
                {"memory", memory},  // by part, where a run's event has the peak
                {"memory_limit", plan.limit},
                {"primal_flops", plan.primal_flops},
                {"tangent_flops", plan.tangent_flops},
                {"products", run.products * static_cast<double>(windows.ids.size(0))},
                {"seconds_from", time.from},
                {"ranks", flags.ranks},
                {"share_of_a_rank", share}});
  event["seconds"] = time.seconds ? nlohmann::json(*time.seconds) : nullptr;
  event["seconds_of_a_rank"] = time.seconds ? nlohmann::json(share * *time.seconds) : nullptr;
  console.event("plan", std::move(event));
}

}  // namespace

Action add_plan(CLI::App& app) {
  auto flags = std::make_shared<PlanFlags>();
  flags->absent = true;
  add_model(app, *flags);
  add_data(app, *flags);
  add_selection(app, *flags);
  app.add_option("--for", flags->run, "whose plan: exact, or diag with the flags of its estimate")
      ->check(CLI::IsMember({"exact", "diag"}))
      ->capture_default_str();
  app.add_option("--ranks", flags->ranks, "processes that share the windows (torchrun, hesper launch)")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  CLI::Option* given = app.add_option("--time-per-product", flags->time_per_product,
                                      "seconds that one product of one window takes, for the time of the run")
                           ->check(CLI::PositiveNumber);
  app.add_flag("--pilot", flags->pilot, "measure that on the first window, with the plan's directions at once")
      ->excludes(given);
  group_options(app, "Ranks and time");
  add_estimate(app, *flags);
  add_exact_engine(app, *flags);
  add_output(app, *flags);
  return [flags](const std::vector<std::string>&) { run_plan(*flags); };
}

}  // namespace hesper::cli
