#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace hesper {

// Values of many named things side by side, a bar each with its error, and a second value as a mark on it.
struct BarPlot {
  std::string title;
  std::string y_label;
  std::vector<std::string> names;        // (n)
  std::vector<double> values;            // (n)
  std::vector<double> errors = {};       // (n) half lengths, or empty
  std::vector<double> marks = {};        // (n) a dot beside each bar, or empty
  std::string value_name, mark_name;     // for the legend
  std::vector<std::string> groups = {};  // (n) runs of equal names share a label below the axis; empty: `names` do
  std::vector<std::string> notes = {};   // lines below the picture
};

// Writes PATH.pdf and PATH.png, or the one file when `path` ends in .pdf or .png. Values that are not finite are left
// out. Throws std::invalid_argument for nothing to draw or lists of unequal lengths, std::runtime_error when a file
// cannot be written.
void write_bars(const BarPlot& plot, const std::filesystem::path& path);

}  // namespace hesper
