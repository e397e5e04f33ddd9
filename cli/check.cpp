#include "hessian/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <stdexcept>

#include "commands.h"
#include "files/atomic_file.h"
#include "flags.h"
#include "hessian/export_script.h"
#include "values.h"

namespace hesper::cli {
namespace {

struct CheckFlags : Flags {
  CheckOptions check;
  ScriptOptions script;
  std::string export_script;
};

void run_check_command(CheckFlags flags) {
  Console console(flags.quiet, flags.json);
  set_threads(flags);
  flags.check.device = parse_device(flags.device);
  if (!flags.precision.empty()) flags.check.precision = parse_precision("--precision", flags.precision);
  if (flags.primal_precision != "auto") {
    flags.check.primal = parse_precision("--primal-precision", flags.primal_precision);
  }
  if (!flags.memory_limit.empty()) flags.check.memory_limit = parse_memory("--memory-limit", flags.memory_limit);
  if (!flags.b) flags.b = 1;
  const Model model = open_model(flags, console);
  const Data data = load_data(flags, model, console);
  const ResolvedSelection selection = select(flags, model);
  flags.check.windows = flags.script.windows = data.windows.ids.size(0);
  flags.check.seed = flags.seed;
  flags.check.data_name = data.name;

  if (!flags.export_script.empty()) {
    flags.script.device = flags.check.device;
    const std::string text = check_script(model, selection.selection, data.windows, flags.script);
    write_file_atomically(flags.export_script, [&](std::ostream& out) { out << text; });
    console.line(
        fmt::format("wrote {}: `python {}` repeats it with transformers", flags.export_script, flags.export_script));
    console.event("result", {{"file", flags.export_script}});
    return;
  }
  const CheckReport report = run_check(model, selection.selection, data.windows, flags.check);
  std::string table = to_table(report);
  while (table.ends_with('\n')) table.pop_back();
  console.result(table);
  console.event("result", to_json(report));
  if (!report.passed()) {
    const auto judged =
        std::count_if(report.rows.begin(), report.rows.end(), [](const auto& row) { return row.judged; });
    const auto held =
        std::count_if(report.rows.begin(), report.rows.end(), [](const auto& row) { return row.judged && row.passed; });
    throw std::runtime_error(fmt::format("check: {} of {} comparisons are beyond their bound", judged - held, judged));
  }
}

}  // namespace

Action add_check(CLI::App& app) {
  auto flags = std::make_shared<CheckFlags>();
  add_model(app, *flags);
  add_data(app, *flags);
  app.get_option("--b")->description("windows (1)");
  app.remove_option(app.get_option("--model-input-bs"));
  add_selection(app, *flags);
  app.add_option("--directions", flags->check.directions, "directions that are compared, 1 to 4")
      ->capture_default_str();
  app.add_option("--differenced", flags->check.differenced, "of them, also against finite differences (0: none)")
      ->capture_default_str();
  app.add_option("--steps", flags->check.steps, "of finite differences (several sizes)")->delimiter(',');
  app.add_option("--precision", flags->precision, "of the tangents that are vouched for: fp32 (default) or fp64");
  app.add_option("--primal-precision", flags->primal_precision, "of their primal pass: fp64 (auto) or fp32")
      ->capture_default_str();
  app.add_option("--memory-limit", flags->memory_limit, "that autograd's graph may take, such as 16GiB (no limit)");
  app.add_option("--export-script", flags->export_script,
                 "write a Python script with the numbers baked in, which repeats them with transformers");
  app.add_option("--entries", flags->script.entries, "weights whose Hessian block that script compares")
      ->capture_default_str();
  add_device(app, *flags);
  add_threads(app, *flags);
  add_output(app, *flags);
  return [flags](const std::vector<std::string>&) { run_check_command(*flags); };
}

}  // namespace hesper::cli
