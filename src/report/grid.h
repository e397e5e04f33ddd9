#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace hesper {

// One panel of a grid: a coloured cell with a short text for each row and column.
struct GridPanel {
  std::string title;
  std::vector<double> values = {};      // (rows * columns) what the colour shows, linear; NaN: grey
  std::vector<std::string> texts = {};  // (rows * columns)
};

// Panels of the same rows and columns side by side, as the layers and blocks of a model.
struct Grid {
  std::string title;
  std::string row_axis, column_axis;
  std::vector<std::string> rows, columns;
  std::vector<GridPanel> panels;
};

// Writes PATH.pdf and PATH.png, or the one file when `path` ends in .pdf or .png.
// Throws std::invalid_argument for an empty grid or panels of another size, std::runtime_error when a file cannot be
// written.
void write_grid(const Grid& grid, const std::filesystem::path& path);

}  // namespace hesper
