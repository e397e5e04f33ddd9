#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace hesper {

// One panel: a dot for each pair of values. Pairs that are not finite are left out.
struct ScatterPanel {
  std::string title;
  std::vector<double> x, y;  // (points)
};

// Panels with the same two axes, three in a row, and the line x = y in each.
struct ScatterPlot {
  std::string title;
  std::string x_label, y_label;
  std::vector<ScatterPanel> panels;
};

// Writes PATH.pdf and PATH.png, or the one file when `path` ends in .pdf or .png.
// Throws std::invalid_argument for nothing to draw or lists of unequal lengths, std::runtime_error when a file cannot
// be written.
void write_scatter(const ScatterPlot& plot, const std::filesystem::path& path);

}  // namespace hesper
