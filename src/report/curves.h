#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace hesper {

struct Series {
  std::string name;
  std::vector<double> x, y;        // (points)
  std::vector<double> error = {};  // (points) half length of the error bar, or empty
  bool markers = true;             // false: the line alone
};

// A line plot: a marker at every point unless a series is a line alone, vertical error bars, the legend beside the
// frame. Points that are not finite are left out.
struct CurvePlot {
  std::string title;
  std::string x_label, y_label;
  bool log_x = false, log_y = false;
  std::vector<Series> series;
};

// Writes PATH.pdf and PATH.png, or the one file when `path` ends in .pdf or .png.
// Throws std::invalid_argument for nothing to draw, series of unequal lengths or values <= 0 on a logarithmic axis,
// std::runtime_error when a file cannot be written.
void write_curves(const CurvePlot& plot, const std::filesystem::path& path);

}  // namespace hesper
