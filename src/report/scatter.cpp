#include "report/scatter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "report/figure.h"

namespace hesper {
namespace {

constexpr double title_size = 10, label_size = 9, tick_size = 8;  // points
constexpr double pad = 10, gap = 4, tick_length = 3.5, side = 170, panel_gap = 14, dot = 1.5;
constexpr size_t across = 3;
constexpr double blue[] = {0, 0.447, 0.698};  // Okabe and Ito

bool drawn(const ScatterPanel& panel, size_t i) { return std::isfinite(panel.x[i]) && std::isfinite(panel.y[i]); }

struct Page {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  Ticks ticks;
  double left = 0, top = 0, row_height = 0, width = 0, height = 0;
  std::vector<std::string> title;

  double place(double value) const { return side * (value - low) / (high - low); }
};

Page make_page(const ScatterPlot& plot) {
  Page page;
  for (const ScatterPanel& panel : plot.panels) {
    if (panel.x.size() != panel.y.size())
      throw std::invalid_argument(
          fmt::format("panel '{}': {} x and {} y", panel.title, panel.x.size(), panel.y.size()));
    for (size_t i = 0; i < panel.x.size(); ++i)
      if (drawn(panel, i))
        page.low = std::min({page.low, panel.x[i], panel.y[i]}),
        page.high = std::max({page.high, panel.x[i], panel.y[i]});
  }
  if (page.low > page.high) throw std::invalid_argument(fmt::format("nothing to draw in '{}'", plot.title));
  const double room = page.low < page.high ? 0.04 * (page.high - page.low) : 1;
  page.low -= room, page.high += room;
  page.ticks = round_ticks(page.low, page.high, 5);
  double tick_labels = 0;
  for (const std::string& label : page.ticks.labels)
    tick_labels = std::max(tick_labels, text_size(label, tick_size).width);
  const auto columns = static_cast<double>(std::min(across, plot.panels.size()));
  const auto rows = static_cast<double>((plot.panels.size() + across - 1) / across);
  page.left = std::ceil(pad + 1.3 * label_size + gap + tick_labels + gap + tick_length);
  page.width = std::ceil(page.left + columns * side + (columns - 1) * panel_gap + pad);
  page.title = wrap_text(plot.title, title_size, page.width - 2 * pad);
  page.top = std::ceil(pad + 1.3 * title_size * static_cast<double>(page.title.size()) + gap + 1.3 * label_size + gap);
  page.row_height = side + tick_length + gap + 1.3 * tick_size + gap + 1.3 * label_size + gap;
  page.height = std::ceil(page.top + rows * page.row_height + gap + pad - 1.3 * label_size);
  return page;
}

void draw_panel(cairo_t* context, const ScatterPanel& panel, const Page& page, double x, double y, bool first) {
  const double bottom = y + side;
  cairo_set_source_rgb(context, 0.75, 0.75, 0.75);
  draw_line(context, x, bottom, x + side, y, 0.6);
  cairo_set_source_rgb(context, blue[0], blue[1], blue[2]);
  for (size_t i = 0; i < panel.x.size(); ++i) {
    if (!drawn(panel, i)) continue;
    cairo_new_path(context);
    cairo_arc(context, x + page.place(panel.x[i]), bottom - page.place(panel.y[i]), dot, 0, 2 * M_PI);
    cairo_fill(context);
  }
  cairo_set_source_rgb(context, 0, 0, 0);
  draw_text(context, panel.title, label_size, x + side / 2, y - gap, 0.5);
  for (size_t i = 0; i < page.ticks.values.size(); ++i) {
    const double at = page.place(page.ticks.values[i]);
    draw_line(context, x + at, bottom, x + at, bottom + tick_length, 0.6);
    draw_line(context, x - tick_length, bottom - at, x, bottom - at, 0.6);
    draw_text(context, page.ticks.labels[i], tick_size, x + at, bottom + tick_length + gap + 0.75 * tick_size, 0.5);
    if (first)
      draw_text(context, page.ticks.labels[i], tick_size, x - tick_length - gap, bottom - at + 0.35 * tick_size, 1);
  }
  draw_frame(context, x, y, side, side);
}

}  // namespace

void write_scatter(const ScatterPlot& plot, const std::filesystem::path& path) {
  const Page page = make_page(plot);
  for (const auto& file : figure_files(path))
    write_figure(file, page.width, page.height, plot.title, [&](cairo_t* context) {
      for (size_t i = 0; i < page.title.size(); ++i)
        draw_text(context, page.title[i], title_size, pad, pad + 1.3 * title_size * (static_cast<double>(i) + 0.8), 0);
      for (size_t i = 0; i < plot.panels.size(); ++i) {
        const double x = page.left + (side + panel_gap) * static_cast<double>(i % across),
                     y = page.top + page.row_height * static_cast<double>(i / across);
        const bool first = i % across == 0;
        draw_panel(context, plot.panels[i], page, x, y, first);
        if (first) draw_text(context, plot.y_label, label_size, pad + label_size, y + side / 2, 0.5, true);
      }
      const double columns = static_cast<double>(std::min(across, plot.panels.size()));
      draw_text(context, plot.x_label, label_size, page.left + (columns * side + (columns - 1) * panel_gap) / 2,
                page.height - pad, 0.5);
    });
}

}  // namespace hesper
