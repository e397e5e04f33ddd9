#include "growth.h"

#include <fmt/format.h>

#include <iostream>

#include "files/atomic_file.h"
#include "report/curves.h"

namespace hesper::bench {
namespace {

const std::vector<std::string> kRows = {kAutograd, "two-pass K=16 fp64+fp32", "gram fp64+fp32"};

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
  for (const std::string& row : kRows) {
    Series series{row, {}, {}};
    for (const Point& p : points) {
      if (p.row != row || (over_t ? p.b != 1 : p.t != kGrowthFrom)) continue;
      series.x.push_back(static_cast<double>(over_t ? p.t : p.b));
      series.y.push_back(memory ? p.peak_mib : p.seconds);
    }
    plot.series.push_back(std::move(series));
  }
  write_curves(plot, fmt::format("{}_{}_{}", prefix, memory ? "memory" : "time", over_t ? "t" : "b"));
}

}  // namespace

void run_growth(const Programs& programs, const Problem& largest, const std::string& prefix) {
  std::vector<std::pair<int64_t, int64_t>> sizes;  // t, b
  for (int64_t t : doublings(kGrowthFrom, largest.t)) sizes.emplace_back(t, 1);
  for (int64_t b : doublings(2, largest.b)) sizes.emplace_back(kGrowthFrom, b);
  std::vector<Point> points;
  std::string csv = "row,t,b,seconds,peak_mib,plan_mib\n";
  for (const std::string& row : kRows)
    for (const auto& [t, b] : sizes) {
      Problem problem = largest;
      problem.t = t, problem.b = b;
      const nlohmann::json out = run_row(programs, row, problem, prefix + ".matrix.npy");
      const Point p{row,
                    t,
                    b,
                    median(out["seconds"]),
                    out["peak_bytes"].get<double>() / (1 << 20),
                    out["plan_bytes"].get<double>() / (1 << 20)};
      points.push_back(p);
      const bool planned = row != kAutograd;  // the plan is of hesper's passes
      const std::string line = fmt::format("{},{},{},{:.4f},{:.1f},{}\n", p.row, p.t, p.b, p.seconds, p.peak_mib,
                                           planned ? fmt::format("{:.1f}", p.plan_mib) : "");
      std::cout << line << std::flush;
      csv += line;
    }
  std::filesystem::remove(prefix + ".matrix.npy");
  write_file_atomically(prefix + ".csv", [&](std::ostream& out) { out << csv; });
  for (const bool over_t : {true, false})
    for (const bool memory : {true, false}) draw(points, over_t, memory, prefix);
}

}  // namespace hesper::bench
