#include "run/diagonal_overview.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "report/grid.h"

namespace hesper {
namespace {

constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();

/// Place of each name among the distinct ones, in order of first appearance.
size_t place_of(std::vector<std::string>& names, const std::string& name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return static_cast<size_t>(found - names.begin());
  names.push_back(name);
  return names.size() - 1;
}

std::string short_text(const Bar& bar) {
  switch (bar.state) {
    case Bar::State::known:
      return bar.value >= 10 ? "> 999%" : fmt::format("{:.{}f}%", 100 * bar.value, bar.value < 0.0995 ? 1 : 0);
    case Bar::State::below_probe_noise:
      return "< noise";
    case Bar::State::not_resolved:
      return "?";
    default:
      return "";
  }
}

}  // namespace

void write_overview(const std::filesystem::path& path, const DiagonalJob& job, const DiagonalResult& result) {
  Grid grid;
  grid.title = fmt::format("{}: {}, b = {}, T = {} (? = not resolved, < noise = below probe noise)", job.title,
                           job.model_name, job.windows.ids.size(0), job.windows.ids.size(1));
  grid.row_axis = "Block";
  grid.column_axis = "Layer";
  std::vector<std::pair<size_t, size_t>> cells;
  for (const SelectedTensor& tensor : job.selection.tensors) {
    const size_t row = place_of(grid.rows, tensor.block < 0 ? "-" : fmt::format("{}", tensor.block));
    cells.emplace_back(row, place_of(grid.columns, tensor.layer));
  }
  const auto panel = [&](const std::string& title, auto value_and_text) {
    const size_t size = grid.rows.size() * grid.columns.size();
    GridPanel p{title, std::vector<double>(size, kNothing), std::vector<std::string>(size)};
    for (size_t i = 0; i < cells.size(); ++i) {
      const size_t at = cells[i].first * grid.columns.size() + cells[i].second;
      std::tie(p.values[at], p.texts[at]) = value_and_text(result.tensors[i]);
    }
    grid.panels.push_back(std::move(p));
  };
  const auto bar = [&](const std::string& title, Bar RelativeBars::*which) {
    panel(title, [which](const TensorDiagonal& d) {
      const Bar b = relative_bars(d.entries).*which;
      return std::pair{b.known() ? b.value : kNothing, short_text(b)};
    });
  };
  panel("Trace (colour: size, log)", [](const TensorDiagonal& d) {
    const double trace = d.sums.mean[0].item<double>();
    return std::pair{trace == 0 ? kNothing : std::log10(std::abs(trace)), fmt::format("{:.3g}", trace)};
  });
  panel("Trace: probe error", [](const TensorDiagonal& d) {
    const Bar b = relative_bars(d.sums, 0, 1).probe;
    return std::pair{b.known() ? b.value : kNothing, short_text(b)};
  });
  panel("Negative entries", [](const TensorDiagonal& d) {
    const double share = d.entries.mean.lt(0).to(at::kDouble).mean().item<double>();
    return std::pair{share, fmt::format("{:.0f}%", 100 * share)};
  });
  bar("Diagonal: probe error", &RelativeBars::probe);
  bar("Diagonal: data error", &RelativeBars::data);
  write_grid(grid, path);
}

}  // namespace hesper
