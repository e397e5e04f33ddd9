#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace hesper {

// A run of rows (and columns) of a square matrix that belongs to one layer.
struct AxisGroup {
  std::string label;
  int64_t begin = 0, end = 0;  // [begin, end)
};

// Picture of |values| in viridis. The colour range runs from the 0th to the 98th percentile of |values|, linear;
// larger values have the last colour. Cells that are NaN or infinite are grey. A matrix with more cells than the
// picture has pixels is shown by the means over squares of cells, grey where one of them is not finite.
struct HeatMap {
  at::Tensor values;  // (rows, cols), any real dtype; a vector is one row
  std::string title;  // one line; wrapped where it is longer than the page is wide
  std::vector<AxisGroup> groups =
      {};  // in order, covering [0, rows) of a square matrix; one or none: plain index ticks
  std::string x_label = "Columns";
  std::string y_label = "Rows";
};

// Writes PATH.pdf and PATH.png, or the one file when `path` ends in .pdf or .png.
// Throws std::invalid_argument for an empty tensor, more than two dimensions or groups that do not cover the axis,
// std::runtime_error when a file cannot be written.
void write_heat_map(const HeatMap& map, const std::filesystem::path& path);

// Where the cells lie in the .png of a heat map, for tests and tools: cell (r, c) of the reduced matrix covers
// pixels [x + c * cell_width, + cell_width) by [y + r * cell_height, + cell_height).
struct HeatMapLayout {
  int x = 0, y = 0;                     // first pixel of the matrix
  int rows = 0, cols = 0;               // of the reduced matrix
  int cell_width = 1, cell_height = 1;  // pixels
  int width = 0, height = 0;            // pixels of the whole picture
};
HeatMapLayout heat_map_layout(const HeatMap& map);

}  // namespace hesper
