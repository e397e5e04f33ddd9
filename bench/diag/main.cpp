// The cost of a whole layer's diagonal to 25%, 10%, 5% true error, method by method, at T = 64 and one window: the
// table of docs/diagonals.md. Finished rows and truths are kept in --cache: a run that was cut goes on where it was.
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <fstream>
#include <iostream>
#include <limits>
#include <map>

#include "../hvp/machine.h"
#include "files/atomic_file.h"
#include "files/digest.h"
#include "measure.h"

namespace hesper::bench {
namespace {
using nlohmann::json;
namespace fs = std::filesystem;

struct Settings {
  std::string opt_tiny, smollm2, text = "examples/sample.txt", cache = "build/bench_diag", json_file;
  int64_t tokens = 64, opt_rows = 64, smollm2_rows = 32;
  Budget smollm2_budget{.samples = 64, .bias_rows = 8, .seeds = 3, .probes = 128};
  int threads = 2;
  std::vector<std::string> methods, layers;
  Budget budget;
};

std::vector<Case> cases(const Settings& s) {
  std::vector<Case> out;
  if (!s.opt_tiny.empty())
    for (const int64_t block : {0, 5})
      for (const char* layer :
           {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "fc1", "fc2"})
        out.push_back({s.opt_tiny, layer, block, s.opt_rows});
  if (!s.smollm2.empty())
    for (const auto& [layer, block] :
         {std::pair{"self_attn.q_proj", 0}, {"self_attn.v_proj", 0}, {"mlp.down_proj", 20}})
      out.push_back({s.smollm2, layer, block, s.smollm2_rows});
  return out;
}

/// The JSON of `key` from the cache, or made and kept there.
template <class F>
json kept(const fs::path& cache, const std::string& key, F make) {
  const fs::path file = cache / fmt::format("row_{}.json", sha256_hex(std::as_bytes(std::span(key))).substr(0, 16));
  if (fs::exists(file)) return json::parse(std::ifstream(file));
  const json out = make();
  write_file_atomically(file, [&](std::ostream& stream) { stream << out.dump(1) << "\n"; });
  return out;
}

std::string say_cell(const json& reach) {
  if (reach.is_null()) return "never";
  const double seconds = reach["seconds"], products = reach["products"];
  return fmt::format("{}{:.3g} s, {:.0f}", reach["extrapolated"].get<bool>() ? "~" : "", seconds, products);
}

void print_row(const std::string& layer, const json& row) {
  std::string line = fmt::format("| {} | {} |", layer, row["method"].get<std::string>());
  line += row.contains("one_sample_error")
              ? fmt::format(" {:.3g} +- {:.1g} | {:.3g} |", row["one_sample_error"].get<double>(),
                            row["one_sample_error_standard_error"].get<double>(),
                            1e3 * row["seconds_a_sample"].get<double>())
              : " | |";
  for (const double error : kErrors) line += fmt::format(" {} |", say_cell(row["reach"][say_error(error)]));
  std::cout << line << "\n" << std::flush;
}

/// Geometric mean over all layers of the reference's seconds to 10% over each method's, and over the best method's of
/// each layer. With its bias the reference may take any time near its floor: both with and without are said.
void add_gains(json& table, bool with_bias) {
  const std::string at = say_error(0.1), best = "best of each layer";
  std::map<std::string, double> logarithms;
  size_t never = 0;
  for (const json& layer : table["layers"]) {
    double reference = 0, fastest = std::numeric_limits<double>::infinity();
    for (const json& row : layer["rows"]) {
      const json& reach = row["reach"][at];
      if (row["method"] == kReference) {
        never += reach.is_null();
        const bool reached = with_bias && !reach.is_null();
        reference = reached ? reach["seconds"].get<double>() : row["without_bias"][at].get<double>();
        continue;
      }
      const double seconds = reach["seconds"];
      logarithms[row["method"]] += std::log(reference / seconds);  // the reference comes first
      fastest = std::min(fastest, seconds);
    }
    logarithms[best] += std::log(reference / fastest);
  }
  std::string line;
  for (const auto& [method, sum] : logarithms) {
    const double gain = std::exp(sum / static_cast<double>(table["layers"].size()));
    table["geometric_mean_gain"][with_bias ? "with_bias" : "without_bias"][method] = gain;
    line += fmt::format("{}{} {:.3g}", line.empty() ? "" : ", ", method, gain);
  }
  std::cout << fmt::format(
      "Gain in seconds to 10% over the reference's estimator{}, geometric mean over all {} layers: {}\n",
      with_bias ? fmt::format(" (without its bias where it never gets there: {} layers)", never)
                : " as if it had no bias",
      table["layers"].size(), line);
}

int run(int argc, char** argv) {
  Settings s;
  int64_t seeds = s.budget.seeds;
  CLI::App app{"seconds and products to a diagonal's true error"};
  app.add_option("--opt-tiny", s.opt_tiny, "folder");
  app.add_option("--smollm2", s.smollm2, "folder");
  app.add_option("--text", s.text, "whose first tokens are the window")->capture_default_str();
  app.add_option("--tokens", s.tokens, "T")->capture_default_str();
  app.add_option("--opt-rows", s.opt_rows, "rows of opt-tiny's layers whose exact diagonal is the truth; 0: all")
      ->capture_default_str();
  app.add_option("--smollm2-rows", s.smollm2_rows)->capture_default_str();
  app.add_option("--samples", s.budget.samples, "of a method whose law is known, opt-tiny")->capture_default_str();
  app.add_option("--smollm2-samples", s.smollm2_budget.samples)->capture_default_str();
  app.add_option("--probes", s.budget.probes, "of the largest whole run")->capture_default_str();
  app.add_option("--smollm2-probes", s.smollm2_budget.probes)->capture_default_str();
  app.add_option("--seeds", seeds, "of whole runs")->capture_default_str();
  app.add_option("--methods", s.methods, "some of them");
  app.add_option("--layers", s.layers, "parts of the names of the layers to run; default: all");
  app.add_option("--threads", s.threads)->capture_default_str();
  app.add_option("--cache", s.cache, "folder of truths and finished rows")->capture_default_str();
  app.add_option("--json", s.json_file, "keeps the table");
  CLI11_PARSE(app, argc, argv);
  s.budget.seeds = s.smollm2_budget.seeds = seeds;

  at::set_num_threads(s.threads);
  json table = {{"machine", machine()}, {"threads", s.threads}, {"tokens", s.tokens}, {"text", s.text}};
  std::map<std::string, std::shared_ptr<const Model>> models;
  std::cout
      << "| layer | method | one sample | ms a sample | to 25% | to 10% | to 5% |\n|---|---|---|---|---|---|---|\n"
      << std::flush;
  for (const Case& what : cases(s)) {
    const std::string name = what.name();
    const auto named = [&](const std::string& part) { return name.find(part) != std::string::npos; };
    if (!s.layers.empty() && std::none_of(s.layers.begin(), s.layers.end(), named)) continue;
    auto& model = models[what.model];
    if (!model) model = std::make_shared<const Model>(load_model(what.model));
    const Stand stand = make_stand(what, model, s.text, s.tokens, s.cache);
    const Budget& budget = what.model == s.smollm2 ? s.smollm2_budget : s.budget;
    const std::string key = fmt::format("{} {} {} {} {} {} {}", stand.key, s.threads, budget.samples, budget.bias_rows,
                                        budget.seeds, budget.probes, table["machine"]["name"].get<std::string>());
    json layer = kept(s.cache, key, [&] { return describe(stand, check_rows(stand, budget.bias_rows)); });
    const RowCheck rows = row_check(layer);
    for (const Method& method : methods()) {
      if (!s.methods.empty() && std::find(s.methods.begin(), s.methods.end(), method.name) == s.methods.end()) continue;
      const json row = kept(s.cache, key + " " + method.name, [&] { return measure(stand, method, rows, budget); });
      print_row(name, row);
      layer["rows"].push_back(row);
    }
    table["layers"].push_back(layer);
  }
  if (s.methods.empty() && !table["layers"].empty()) {
    std::cout << "\n";
    add_gains(table, true);
    add_gains(table, false);
  }
  if (!s.json_file.empty())
    write_file_atomically(s.json_file, [&](std::ostream& out) { out << table.dump(1) << "\n"; });
  return 0;
}

}  // namespace
}  // namespace hesper::bench

int main(int argc, char** argv) {
  try {
    return hesper::bench::run(argc, argv);
  } catch (const std::exception& e) {
    std::cerr << "bench_diag: " << e.what() << "\n";
    return 1;
  }
}
