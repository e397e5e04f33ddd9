// ms a column of an exact block, all in: (primal pass + tangent passes) / t, of each pass and precision, beside
// LibTorch's double backward and the reference's Python loop on the same threads and allocator. Each row is a process
// of its own: this program starts itself with --row.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "files/atomic_file.h"
#include "growth.h"
#include "table.h"

namespace hesper::bench {
namespace {

int run(int argc, char** argv) {
  Problem problem;
  Programs programs{std::filesystem::read_symlink("/proc/self/exe").string(), "", ""};
  std::string row, matrix, json_file, growth;
  std::vector<std::string> rows;
  CLI::App app{"ms a column of an exact block"};
  app.add_option("--model", problem.model, "folder")->required();
  app.add_option("--ids", problem.ids, ".npy of ids; default: random ones");
  app.add_option("--layer", problem.layer);
  app.add_option("--block", problem.block);
  app.add_option("--tokens", problem.tokens, "T");
  app.add_option("--t", problem.t, "columns");
  app.add_option("--b", problem.b, "windows");
  app.add_option("--threads", problem.threads);
  app.add_option("--repeats", problem.repeats, "the median is taken")->check(CLI::PositiveNumber);
  app.add_option("--python", programs.python, "a Python with torch and transformers, for the reference's loop");
  app.add_option("--reference", programs.reference, "reference_cpu.py");
  app.add_option("--rows", rows, "parts of the names of the rows to run; default: all");
  app.add_option("--json", json_file, "keeps the table");
  app.add_option("--growth", growth, "PREFIX: instead of a table, curves over t up to --t and over b up to --b");
  app.add_option("--row", row)->group("");        // one row, in this process
  app.add_option("--matrix", matrix)->group("");  // .npy for its block
  CLI11_PARSE(app, argc, argv);

  if (!row.empty()) {
    const std::vector<Row> all = all_rows();
    const auto found = std::find_if(all.begin(), all.end(), [&](const Row& r) { return r.name == row; });
    if (found == all.end()) throw std::invalid_argument("no row " + row);
    std::cout << measure(*found, problem, matrix).dump() << "\n";
    return 0;
  }
  if (!growth.empty()) {
    if (problem.ids.empty()) throw std::invalid_argument("--growth needs --ids");
    const std::filesystem::path self = programs.self;  // build/bench/bench/bench_hvp
    run_growth((self.parent_path().parent_path() / "hesper").string(), problem, growth);
    return 0;
  }
  // The tuned allocator, for every row and the rivals alike: freed buffers stay with the process.
  setenv("MALLOC_MMAP_THRESHOLD_", "8589934592", 1);
  setenv("MALLOC_TRIM_THRESHOLD_", "17179869184", 1);
  setenv("OMP_NUM_THREADS", std::to_string(problem.threads).c_str(), 1);
  const nlohmann::json table = run_table(programs, problem, rows);
  if (!json_file.empty()) write_file_atomically(json_file, [&](std::ostream& out) { out << table.dump(1) << "\n"; });
  return 0;
}

}  // namespace
}  // namespace hesper::bench

int main(int argc, char** argv) {
  try {
    return hesper::bench::run(argc, argv);
  } catch (const std::exception& e) {
    std::cerr << "bench_hvp: " << e.what() << "\n";
    return 1;
  }
}
