#include "report/compare.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <memory>

#include "checkpoint/safetensors.h"
#include "commands.h"
#include "console.h"

namespace hesper::cli {
namespace {

// The standard errors beside a result of ours (--errors full), undefined without.
at::Tensor bars_beside(const std::string& file) {
  if (!file.ends_with(".pt")) return {};
  const std::string aux = file.substr(0, file.size() - 3) + ".aux.safetensors";
  if (!std::filesystem::exists(aux)) return {};
  const SafetensorsFile stored(aux);
  return stored.has("standard_error") ? stored.view("standard_error").clone() : at::Tensor();
}

struct CompareFlags {
  std::string a, b, standard_error;
  bool json = false;
};

void run_compare(const CompareFlags& flags) {
  Console console(false, flags.json);
  const at::Tensor a = read_matrix(flags.a), b = read_matrix(flags.b);
  std::optional<at::Tensor> bars;
  std::string of;
  if (!flags.standard_error.empty()) {
    bars = read_matrix(flags.standard_error);
    of = flags.standard_error;
  } else {
    const at::Tensor bar_a = bars_beside(flags.a), bar_b = bars_beside(flags.b);
    const bool both = bar_a.defined() && bar_b.defined() && bar_a.sizes() == bar_b.sizes();
    if (both) bars = (bar_a.square() + bar_b.square()).sqrt(), of = "A and B, added in squares";
    if (!both && bar_a.defined()) bars = bar_a, of = "A";
    if (!both && !bar_a.defined() && bar_b.defined()) bars = bar_b, of = "B";
  }
  const Comparison c = compare(a, b, bars);

  const auto row = [&](const char* head, const std::string& text) {
    console.result(fmt::format("{:<28}{}", head, text));
  };
  row("shape", fmt::format("({})", fmt::join(a.sizes(), ", ")));
  row("|A - B| / |B|", fmt::format("{:.6g}", c.error));
  row("best scale s", fmt::format("{:.8g}, |s A - B| / |B| {:.6g}", c.best_scale, c.error_after_scale));
  row("cosine", fmt::format("{:.10g}", c.cosine));
  row("largest |a - b|", fmt::format("{:.4g}", c.worst_abs));
  row("diagonals, Spearman", fmt::format("{:.6g} over {}", c.diagonal_spearman, c.diagonal_size));
  row("diagonals, top overlap", fmt::format("{:.4g} of the {} largest", c.diagonal_top_overlap, c.top));
  if (c.in_bars) {
    row("in standard errors", fmt::format("rms {:.3g}, largest {:.3g} over {} entries (bars of {})", c.in_bars->rms,
                                          c.in_bars->max, c.in_bars->count, of));
  }
  console.event("result", to_json(c));
}

}  // namespace

Action add_compare(CLI::App& app) {
  auto flags = std::make_shared<CompareFlags>();
  app.add_option("A", flags->a, ".pt, .npy or .safetensors (FILE:TENSOR)")->required();
  app.add_option("B", flags->b, "the one that norms are taken of")->required();
  app.add_option("--standard-error", flags->standard_error,
                 "a file of that shape (those of --errors full beside A and B are found)");
  app.add_flag("--json", flags->json, "one JSON object on standard output");
  return [flags](const std::vector<std::string>&) { run_compare(*flags); };
}

}  // namespace hesper::cli
