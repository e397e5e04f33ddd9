#include "report/grid.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "report/figure.h"
#include "report/viridis.h"

namespace hesper {
namespace {

// Points.
constexpr double pad = 12, gap = 5, panel_gap = 22;
constexpr double title_size = 12, label_size = 10, text_points = 8;
constexpr double cell_height = 16, narrowest_cell = 34;
constexpr size_t panels_across = 3;

struct Layout {
  double cell_width = narrowest_cell, row_labels = 0, column_labels = 0;
  double top = 0, left = 0, panel_width = 0, panel_height = 0;  // of the first panel's cells; steps between panels
  double width = 0, height = 0;
  std::vector<std::string> title;
};

void check(const Grid& grid) {
  const size_t cells = grid.rows.size() * grid.columns.size();
  if (cells == 0 || grid.panels.empty()) throw std::invalid_argument("grid: there is nothing to draw");
  for (const GridPanel& panel : grid.panels)
    if (panel.values.size() != cells || panel.texts.size() != cells)
      throw std::invalid_argument(fmt::format("grid: panel {} has {} values and {} texts for {} cells", panel.title,
                                              panel.values.size(), panel.texts.size(), cells));
}

Layout make_layout(const Grid& grid) {
  Layout l;
  for (const std::string& row : grid.rows) l.row_labels = std::max(l.row_labels, text_size(row, text_points).width);
  for (const std::string& column : grid.columns)
    l.column_labels = std::max(l.column_labels, text_size(column, text_points).width);
  for (const GridPanel& panel : grid.panels) {
    for (const std::string& text : panel.texts)
      l.cell_width = std::max(l.cell_width, text_size(text, text_points).width + 2 * gap);
  }
  const auto columns = static_cast<double>(grid.columns.size());
  for (const GridPanel& panel : grid.panels)
    l.cell_width = std::max(l.cell_width, text_size(panel.title, label_size).width / columns);
  l.panel_width = l.cell_width * columns;
  const size_t across = std::min(grid.panels.size(), panels_across), down = (grid.panels.size() + across - 1) / across;
  l.left = pad + 1.3 * label_size + gap + l.row_labels + gap;
  l.width = std::ceil(l.left + static_cast<double>(across) * (l.panel_width + panel_gap) - panel_gap + pad);
  l.title = wrap_text(grid.title, title_size, l.width - 2 * pad);
  l.top = pad + 1.3 * title_size * static_cast<double>(l.title.size()) + gap + 1.3 * label_size + gap;
  l.panel_height =
      cell_height * static_cast<double>(grid.rows.size()) + gap + l.column_labels + gap + panel_gap + 1.3 * label_size;
  l.height = std::ceil(l.top + static_cast<double>(down) * l.panel_height);
  return l;
}

void draw_row_labels(cairo_t* context, const Grid& grid, const Layout& l, double y) {
  cairo_set_source_rgb(context, 0, 0, 0);
  draw_text(context, grid.row_axis, label_size, pad + label_size * 0.8,
            y + cell_height * static_cast<double>(grid.rows.size()) / 2, 0.5, true);
  for (size_t r = 0; r < grid.rows.size(); ++r)
    draw_text(context, grid.rows[r], text_points, l.left - gap, y + cell_height * (static_cast<double>(r) + 0.68), 1);
}

void draw_panel(cairo_t* context, const Grid& grid, const GridPanel& panel, const Layout& l, double x, double y) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const double value : panel.values)
    if (std::isfinite(value)) low = std::min(low, value), high = std::max(high, value);
  const size_t rows = grid.rows.size(), columns = grid.columns.size();
  cairo_set_source_rgb(context, 0, 0, 0);
  draw_text(context, panel.title, label_size, x + l.panel_width / 2, y - gap, 0.5);
  for (size_t i = 0; i < rows * columns; ++i) {
    const double left = x + l.cell_width * static_cast<double>(i % columns);
    const double up = y + cell_height * static_cast<double>(i / columns);
    const double share = high > low ? (panel.values[i] - low) / (high - low) : 0.5;
    const bool coloured = std::isfinite(panel.values[i]);
    if (coloured) {
      const uint32_t rgb = viridis[static_cast<size_t>(std::lround(255 * share))];
      cairo_set_source_rgb(context, (rgb >> 16 & 255) / 255.0, (rgb >> 8 & 255) / 255.0, (rgb & 255) / 255.0);
    } else {
      cairo_set_source_rgb(context, 0.85, 0.85, 0.85);
    }
    cairo_rectangle(context, left, up, l.cell_width, cell_height);
    cairo_fill(context);
    const double ink = coloured && share < 0.6 ? 1 : 0;  // white on viridis' dark half
    cairo_set_source_rgb(context, ink, ink, ink);
    draw_text(context, panel.texts[i], text_points, left + l.cell_width / 2, up + cell_height * 0.68, 0.5);
  }
  cairo_set_source_rgb(context, 0, 0, 0);
  const double bottom = y + cell_height * static_cast<double>(rows);
  draw_frame(context, x, y, l.panel_width, bottom - y);
  for (size_t c = 0; c < columns; ++c)
    draw_text(context, grid.columns[c], text_points, x + l.cell_width * (static_cast<double>(c) + 0.5) + 3,
              bottom + gap, 1, true);
  draw_text(context, grid.column_axis, label_size, x + l.panel_width / 2,
            bottom + gap + l.column_labels + gap + label_size, 0.5);
}

}  // namespace

void write_grid(const Grid& grid, const std::filesystem::path& path) {
  check(grid);
  const Layout l = make_layout(grid);
  for (const std::filesystem::path& file : figure_files(path)) {
    write_figure(file, l.width, l.height, grid.title, [&](cairo_t* context) {
      double y = pad + title_size * 0.9;
      cairo_set_source_rgb(context, 0, 0, 0);
      for (const std::string& line : l.title) {
        draw_text(context, line, title_size, l.width / 2, y, 0.5);
        y += 1.3 * title_size;
      }
      for (size_t i = 0; i < grid.panels.size(); ++i) {
        const double top = l.top + l.panel_height * static_cast<double>(i / panels_across);
        if (i % panels_across == 0) draw_row_labels(context, grid, l, top);
        draw_panel(context, grid, grid.panels[i], l,
                   l.left + (l.panel_width + panel_gap) * static_cast<double>(i % panels_across), top);
      }
    });
  }
}

}  // namespace hesper
