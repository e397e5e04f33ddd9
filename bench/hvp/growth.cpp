#include "growth.h"

#include <fmt/format.h>

#include <iostream>
#include <sstream>

#include "files/atomic_file.h"
#include "process.h"
#include "report/curves.h"

namespace hesper::bench {
namespace {

const std::string kRival = "autograd";
/// A curve and the flags that make it.
const std::vector<std::pair<std::string, std::vector<std::string>>> kCurves = {
    {kRival, {"--engine", "autograd", "--precision", "fp32"}},
    {"two-pass", {"--pass", "two-pass", "--primal-precision", "fp64"}},
    {"Gram", {"--pass", "gram", "--primal-precision", "fp64"}}};

struct Point {
  std::string row;
  int64_t t, b;
  double seconds, peak_mib, plan_mib;
};

std::vector<int64_t> doublings(int64_t from, int64_t to) {
  std::vector<int64_t> out;
  for (int64_t x = from; x <= to; x *= 2) out.push_back(x);
  return out;
}

void draw(const std::vector<Point>& points, bool over_t, bool memory, const std::string& prefix) {
  CurvePlot plot;
  plot.title = memory ? "peak memory" : "time";
  plot.x_label = over_t ? "t, entries of the block's side" : "b, windows";
  plot.y_label = memory ? "MiB" : "seconds";
  plot.log_x = true;
  plot.log_y = !memory;
  const auto add = [&](const std::string& row, const std::string& name, double Point::*value) {
    Series series{name, {}, {}};
    for (const Point& p : points) {
      if (p.row != row || (over_t ? p.b != 1 : p.t != kGrowthFrom)) continue;
      series.x.push_back(static_cast<double>(over_t ? p.t : p.b));
      series.y.push_back(p.*value);
    }
    plot.series.push_back(std::move(series));
  };
  for (const auto& [row, flags] : kCurves) {
    add(row, row, memory ? &Point::peak_mib : &Point::seconds);
    if (memory && row != kRival) add(row, row + ": plan", &Point::plan_mib);
  }
  write_curves(plot, fmt::format("{}_{}_{}", prefix, memory ? "memory" : "time", over_t ? "t" : "b"));
}

/// The last event of this kind that the tool printed.
nlohmann::json event_of(const std::string& output, const std::string& kind) {
  nlohmann::json found;
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);)
    if (nlohmann::json event = nlohmann::json::parse(line); event["event"] == kind) found = std::move(event);
  return found;
}

Point run_tool(const std::string& tool, const std::string& row, const std::vector<std::string>& flags, const Problem& p,
               int64_t t, int64_t b, const std::string& scratch) {
  std::vector<std::string> argv{tool,    "exact",   "--json", "--overwrite", "--out", scratch, "--model",
                                p.model, "--layer", p.layer,  "--token-ids", p.ids,   "--bos", "none"};
  for (const auto& [flag, value] : {std::pair{"--block", p.block},
                                    {"--seqlen", p.tokens},
                                    {"--t", t},
                                    {"--b", b},
                                    {"--threads", static_cast<int64_t>(p.threads)}})
    argv.insert(argv.end(), {flag, std::to_string(value)});
  argv.insert(argv.end(), flags.begin(), flags.end());
  const Finished done = run_process(argv);
  constexpr double mib = 1 << 20;
  return {row,
          t,
          b,
          event_of(done.output, "result")["seconds"].get<double>(),
          static_cast<double>(done.peak_bytes) / mib,
          event_of(done.output, "plan").value("memory", 0.0) / mib};
}

}  // namespace

void run_growth(const std::string& tool, const Problem& largest, const std::string& prefix) {
  std::vector<std::pair<int64_t, int64_t>> sizes;  // t, b
  for (int64_t t : doublings(kGrowthFrom, largest.t)) sizes.emplace_back(t, 1);
  for (int64_t b : doublings(2, largest.b)) sizes.emplace_back(kGrowthFrom, b);
  const std::string scratch = prefix + ".scratch";
  std::vector<Point> points;
  std::string csv = "row,t,b,seconds,peak_mib,plan_mib\n";
  for (const auto& [row, flags] : kCurves)
    for (const auto& [t, b] : sizes) {
      const Point p = run_tool(tool, row, flags, largest, t, b, scratch + "/" + row);
      points.push_back(p);
      const bool planned = row != kRival;  // the plan is of hesper's passes
      const std::string line = fmt::format("{},{},{},{:.4f},{:.1f},{}\n", row, t, b, p.seconds, p.peak_mib,
                                           planned ? fmt::format("{:.1f}", p.plan_mib) : "");
      std::cout << line << std::flush;
      csv += line;
    }
  std::filesystem::remove_all(scratch);
  write_file_atomically(prefix + ".csv", [&](std::ostream& out) { out << csv; });
  for (const bool over_t : {true, false})
    for (const bool memory : {true, false}) draw(points, over_t, memory, prefix);
}

}  // namespace hesper::bench
