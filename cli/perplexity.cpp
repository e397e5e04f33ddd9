#include <fmt/format.h>

#include <cmath>
#include <memory>

#include "commands.h"
#include "flags.h"
#include "interrupt.h"
#include "run/exact_files.h"
#include "values.h"

namespace hesper::cli {
namespace {

void run_perplexity(const Flags& flags) {
  Console console(flags.quiet, flags.json);
  set_threads(flags);
  EngineOptions options;
  choose_devices(options, flags);
  options.primal = flags.precision.empty() ? at::kDouble : parse_precision("--precision", flags.precision);
  options.batch = flags.model_input_bs;
  limit_memory(options, flags);
  catch_interrupts();
  const Model model = open_model(flags, console);
  stop_if_interrupted();
  const Data data = load_data(flags, model, console);
  stop_if_interrupted();

  const Plan plan = plan_losses(model, data.windows, options);
  console.line(fmt::format("{} primal passes; {}", precision_name(plan.primal), say_room(plan)));
  console.event("plan", plan_event(plan));
  double seconds = 0;
  const WindowLosses losses = compute_losses(model, data.windows, options, [&](const Progress& p) {
    stop_if_interrupted();
    seconds = p.seconds;
    console.progress({p.units, p.done, 0, p.seconds});
  });
  const double loss = losses.loss(), perplexity = std::exp(loss), error = losses.standard_error();
  const auto tokens = losses.counts.sum().item<int64_t>();
  const int64_t b = data.windows.ids.size(0);
  // d exp(loss) = exp(loss) d loss
  const std::string loss_bar = b > 1 ? fmt::format(" +- {:.2g}", error) : "";
  const std::string bar = b > 1 ? fmt::format(" +- {:.2g}", perplexity * error) : "";
  console.end_progress();
  console.result(fmt::format("loss        {:.10g}{}", loss, loss_bar));
  console.result(fmt::format("perplexity  {:.10g}{}", perplexity, bar));
  console.line(fmt::format("{} predicted tokens, {} of {} windows of {} tokens, {}", tokens, b, data.windows.available,
                           data.windows.ids.size(1), say_seconds(seconds)));
  if (b > 1) console.line("+-: standard error over the windows");
  const auto or_null = [&](double x) { return b > 1 ? nlohmann::json(x) : nlohmann::json(); };
  const at::Tensor each = losses.losses.to(at::kCPU).contiguous();
  console.event("result", {{"loss", loss},
                           {"loss_standard_error", or_null(error)},
                           {"perplexity", perplexity},
                           {"perplexity_standard_error", or_null(perplexity * error)},
                           {"tokens", tokens},
                           {"windows", b},
                           {"seqlen", data.windows.ids.size(1)},
                           {"window_losses", std::vector<double>(each.const_data_ptr<double>(),
                                                                 each.const_data_ptr<double>() + each.numel())},
                           {"ids_sha256", ids_sha256(data.windows.ids)},
                           {"seconds", seconds}});
}

}  // namespace

Action add_perplexity(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  add_model(app, *flags);
  add_data(app, *flags);
  app.add_option("--precision", flags->precision, "fp64 (default) or fp32");
  app.add_option("--memory-limit", flags->memory_limit, "such as 16GiB (all that is free)");
  group_options(app, "Engine");
  add_device(app, *flags);
  add_threads(app, *flags);
  add_output(app, *flags);
  return [flags](const std::vector<std::string>&) { run_perplexity(*flags); };
}

}  // namespace hesper::cli
