#include "table.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <iostream>
#include <regex>
#include <stdexcept>

#include "machine.h"
#include "process.h"
#include "text/npy.h"

namespace hesper::bench {
namespace {
using nlohmann::json;

/// A folder for the matrices of the rows, gone in the end.
struct Scratch {
  std::filesystem::path folder;
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "bench_hvp_XXXXXX").string();
    if (!mkdtemp(name.data())) throw std::runtime_error("cannot make " + name);
    folder = name;
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

/// The reference's own loop in Python: one line "A ms a column, B ms for forward and backward, C ms a column all in".
/// It has no --repeats: it is run that many times.
json run_reference(const Programs& programs, const Problem& p) {
  std::vector<std::string> argv{programs.python,          programs.reference, p.model, p.layer, std::to_string(p.block),
                                std::to_string(p.tokens), std::to_string(p.t)};
  if (!p.ids.empty()) argv.push_back(p.ids);
  json row{{"row", kReference}};
  for (int64_t i = 0; i < p.repeats; ++i) {
    const Finished done = run_process(argv);
    std::smatch found;
    if (!std::regex_search(done.output, found,
                           std::regex(R"(([\d.]+) ms a column, (-?[\d.]+) ms for .*, ([\d.]+) ms a column all in)")))
      throw std::runtime_error(fmt::format("{}: no timing in its output \"{}\"", programs.reference, done.output));
    row["seconds"].push_back(1e-3 * std::stod(found[3]) * static_cast<double>(p.t));
    row["primal_seconds"].push_back(1e-3 * std::stod(found[2]));
    row["peak_bytes"] = done.peak_bytes;
  }
  return row;
}

void add_column_times(json& row, const Problem& p) {
  const auto times = row["seconds"].get<std::vector<double>>();
  const double columns = 1e-3 * static_cast<double>(p.t * p.b);
  row["ms_column"] = {{"median", median(times) / columns},
                      {"lowest", *std::min_element(times.begin(), times.end()) / columns},
                      {"highest", *std::max_element(times.begin(), times.end()) / columns}};
}

double ms_column(const json& row) { return row["ms_column"]["median"]; }

// A table that Markdown shows as one.
constexpr const char* kForm =
    "| {:24} | {:>9} | {:>15} | {:>9} | {:>10} | {:>11} | {:>8} | {:>8} | {:>8} | {:>8} | {:>8} |\n";

void print_header() {
  std::cout << fmt::format(kForm, "row", "ms/column", "lowest-highest", "primal ms", "x autograd", "x reference",
                           "of bound", "GFLOP/s", "peak MiB", "faults", "error");
  std::cout << "|---|---|---|---|---|---|---|---|---|---|---|\n";
}

void print(const json& row) {
  const auto number = [&](const char* key, int digits, const char* type = "f") {
    return row.contains(key)
               ? fmt::format(fmt::runtime(fmt::format("{{:.{}{}}}", digits, type)), row[key].get<double>())
               : std::string();
  };
  const json& ms = row["ms_column"];
  std::cout << fmt::format(kForm, row["row"].get<std::string>(), fmt::format("{:.2f}", ms_column(row)),
                           fmt::format("{:.2f}-{:.2f}", ms["lowest"].get<double>(), ms["highest"].get<double>()),
                           fmt::format("{:.1f}", 1e3 * median(row["primal_seconds"])), number("ratio_to_autograd", 2),
                           number("ratio_to_reference", 2), number("of_bound", 2), number("gflops", 1),
                           fmt::format("{:.0f}", row["peak_bytes"].get<double>() / (1 << 20)),
                           row.contains("page_faults") ? fmt::format("{:.0f}", median(row["page_faults"])) : "",
                           number("error", 1, "e"))
            << std::flush;
}

}  // namespace

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

json run_row(const Programs& programs, const std::string& row, const Problem& p, const std::filesystem::path& matrix) {
  std::vector<std::string> argv{programs.self, "--row", row,       "--matrix", matrix.string(),
                                "--model",     p.model, "--layer", p.layer};
  if (!p.ids.empty()) argv.insert(argv.end(), {"--ids", p.ids});
  for (const auto& [flag, value] : {std::pair{"--block", p.block},
                                    {"--tokens", p.tokens},
                                    {"--t", p.t},
                                    {"--b", p.b},
                                    {"--repeats", p.repeats},
                                    {"--threads", static_cast<int64_t>(p.threads)}})
    argv.insert(argv.end(), {flag, std::to_string(value)});
  const Finished done = run_process(argv);
  json out = json::parse(done.output);
  out["row"] = row;
  out["peak_bytes"] = done.peak_bytes;
  return out;
}

json run_table(const Programs& programs, const Problem& problem, const std::vector<std::string>& wanted) {
  const auto is_wanted = [&](const std::string& name) {
    return wanted.empty() || std::any_of(wanted.begin(), wanted.end(),
                                         [&](const std::string& part) { return name.find(part) != std::string::npos; });
  };
  const Scratch scratch;
  const json rates = product_rates(problem.threads);
  json table{{"machine", machine()},
             {"model", std::filesystem::path(problem.model).lexically_normal().filename()},
             {"ids", problem.ids.empty() ? "random" : std::filesystem::path(problem.ids).filename().string()},
             {"layer", problem.layer},
             {"block", problem.block},
             {"tokens", problem.tokens},
             {"t", problem.t},
             {"b", problem.b},
             {"threads", problem.threads},
             {"repeats", problem.repeats},
             {"product_gflops", rates},
             {"rows", json::array()}};
  std::cout << fmt::format("{} block {} {}, T = {}, t = {}, b = {}, {} threads, {} repeats\n{}\nGFLOP/s {}\n",
                           problem.model, problem.block, problem.layer, problem.tokens, problem.t, problem.b,
                           problem.threads, problem.repeats, table["machine"].dump(), rates.dump());
  print_header();

  Tensor exact;
  const json *autograd = nullptr, *reference = nullptr;
  json& rows = table["rows"];
  rows.get_ref<json::array_t&>().reserve(all_rows().size() + 1);  // pointers to rows stay
  const auto keep = [&](json row) -> const json* {
    add_column_times(row, problem);
    if (autograd) row["ratio_to_autograd"] = ms_column(*autograd) / ms_column(row);
    if (reference) row["ratio_to_reference"] = ms_column(*reference) / ms_column(row);
    print(row);
    rows.push_back(std::move(row));
    return &rows.back();
  };
  if (!programs.python.empty() && problem.b == 1 && is_wanted(kReference))
    reference = keep(run_reference(programs, problem));
  for (const Row& row : all_rows()) {
    const bool truth = row.name == kTruth;
    if (!truth && !is_wanted(row.name)) continue;
    Problem mine = problem;
    if (truth) mine.repeats = 1;
    const std::filesystem::path matrix = scratch.folder / "matrix.npy";
    json out = run_row(programs, row.name, mine, matrix);
    const Tensor h = read_npy(matrix);
    if (truth) exact = h;
    if (!truth) out["error"] = ((h - exact).norm() / exact.norm()).item<double>();
    const double primal = out["primal_flops"], tangents = out["tangent_flops"], seconds = median(out["seconds"]);
    const auto rate = [&](at::ScalarType dtype) {
      return 1e9 * rates[dtype == at::kDouble ? "fp64" : "fp32"].get<double>();
    };
    out["gflops"] = 1e-9 * (primal + tangents) / seconds;
    out["of_bound"] = (primal / rate(*row.options.primal) + tangents / rate(row.options.precision)) / seconds;
    const json* kept = keep(std::move(out));
    if (row.name == kAutograd) autograd = kept;
  }
  if (autograd && reference) {
    // The rival must be the better of two: LibTorch's double backward at most a tenth slower than the reference's loop.
    table["valid"] = ms_column(*autograd) <= 1.1 * ms_column(*reference);
    std::cout << fmt::format("autograd takes {:.2f} times the reference's loop: {}\n",
                             ms_column(*autograd) / ms_column(*reference),
                             table["valid"].get<bool>() ? "valid" : "NOT VALID, more than 1.10");
  }
  return table;
}

}  // namespace hesper::bench
