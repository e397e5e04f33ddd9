#include "report/bars.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "report/figure.h"

namespace hesper {
namespace {

constexpr double title_size = 10, label_size = 9, tick_size = 8, note_size = 8;  // points
constexpr double pad = 10, gap = 4, tick_length = 3.5, frame_height = 230;
constexpr double least_width = 330, most_width = 1200, bar_room = 14, most_name = 120;
constexpr double blue[] = {0, 0.447, 0.698}, vermilion[] = {0.835, 0.369, 0};  // Okabe and Ito

struct Page {
  double low = 0, high = 0;  // of the y axis, zero included
  Ticks ticks;
  double left = 0, top = 0, frame_width = 0, step = 0, below = 0, width = 0, height = 0;
  std::vector<std::string> title;

  double x(size_t i) const { return left + step * (static_cast<double>(i) + 0.5); }
  double y(double value) const { return top + frame_height * (high - value) / (high - low); }
};

void require_lengths(const BarPlot& plot) {
  const size_t n = plot.values.size();
  for (const size_t other : {plot.names.size(), plot.errors.empty() ? n : plot.errors.size(),
                             plot.marks.empty() ? n : plot.marks.size(), plot.groups.empty() ? n : plot.groups.size()})
    if (other != n)
      throw std::invalid_argument(fmt::format("bars '{}': {} values, {} of another list", plot.title, n, other));
  if (std::none_of(plot.values.begin(), plot.values.end(), [](double v) { return std::isfinite(v); }))
    throw std::invalid_argument(fmt::format("nothing to draw in '{}'", plot.title));
}

const std::vector<std::string>& labels_of(const BarPlot& plot) {
  return plot.groups.empty() ? plot.names : plot.groups;
}

Page make_page(const BarPlot& plot) {
  Page page;
  const auto include = [&](double v) {
    if (std::isfinite(v)) page.low = std::min(page.low, v), page.high = std::max(page.high, v);
  };
  for (size_t i = 0; i < plot.values.size(); ++i) {
    const double error = plot.errors.empty() || !std::isfinite(plot.errors[i]) ? 0 : plot.errors[i];
    include(plot.values[i] + error), include(plot.values[i] - error);
    if (!plot.marks.empty()) include(plot.marks[i]);
  }
  if (page.low == page.high) page.high = page.low + 1;
  const double room = 0.05 * (page.high - page.low);
  if (page.low < 0) page.low -= room;
  page.high += room;
  page.ticks = round_ticks(page.low, page.high, 8);
  double y_labels = 0, names = 0;
  for (const std::string& label : page.ticks.labels) y_labels = std::max(y_labels, text_size(label, tick_size).width);
  for (const std::string& name : labels_of(plot)) names = std::max(names, text_size(name, tick_size).width);
  page.below = std::min(names, most_name);
  page.left = std::ceil(pad + 1.3 * label_size + gap + y_labels + gap + tick_length);
  page.frame_width = std::clamp(bar_room * static_cast<double>(plot.values.size()), least_width, most_width);
  page.step = page.frame_width / static_cast<double>(plot.values.size());
  page.width = std::ceil(page.left + page.frame_width + pad);
  page.title = wrap_text(plot.title, title_size, page.width - 2 * pad);
  const double legend = plot.marks.empty() ? 0 : 1.6 * note_size,
               power = page.ticks.exponent != 0 ? 1.3 * tick_size : 0;
  page.top = std::ceil(pad + 1.3 * title_size * static_cast<double>(page.title.size()) + legend + gap + power);
  page.height = std::ceil(page.top + frame_height + tick_length + gap + page.below + gap +
                          1.4 * note_size * static_cast<double>(plot.notes.size()) + pad);
  return page;
}

void draw_axis(cairo_t* context, const BarPlot& plot, const Page& page) {
  for (size_t i = 0; i < page.title.size(); ++i)
    draw_text(context, page.title[i], title_size, pad, pad + 1.3 * title_size * (static_cast<double>(i) + 0.8), 0);
  for (size_t i = 0; i < page.ticks.values.size(); ++i) {
    const double y = page.y(page.ticks.values[i]);
    draw_line(context, page.left - tick_length, y, page.left, y, 0.6);
    draw_text(context, page.ticks.labels[i], tick_size, page.left - tick_length - gap, y + 0.35 * tick_size, 1);
  }
  if (page.ticks.exponent != 0)
    draw_power(context, "\u00d7", page.ticks.exponent, tick_size, page.left, page.top - gap, 0);
  draw_text(context, plot.y_label, label_size, pad + label_size, page.top + frame_height / 2, 0.5, true);
  draw_line(context, page.left, page.y(0), page.left + page.frame_width, page.y(0), 0.6);
  draw_frame(context, page.left, page.top, page.frame_width, frame_height);
}

/// One label a run of equal names, at its middle; thinned where they would touch.
void draw_names(cairo_t* context, const BarPlot& plot, const Page& page) {
  const std::vector<std::string>& labels = labels_of(plot);
  const double y = page.top + frame_height + tick_length + gap;
  double free = page.left;
  for (size_t begin = 0, end = 0; begin < labels.size(); begin = end) {
    while (end < labels.size() && labels[end] == labels[begin]) ++end;
    const double x = (page.x(begin) + page.x(end - 1)) / 2;
    if (!plot.groups.empty() && begin > 0) {
      const double edge = page.left + page.step * static_cast<double>(begin);
      draw_line(context, edge, page.top + frame_height, edge, page.top + frame_height + tick_length, 0.6);
    }
    if (x - 0.6 * tick_size < free) continue;
    free = x + 0.6 * tick_size;
    draw_text(context, fit_text(labels[begin], tick_size, page.below), tick_size, x + 0.35 * tick_size, y, 1, true);
  }
}

void draw_values(cairo_t* context, const BarPlot& plot, const Page& page) {
  const double half = 0.35 * page.step;
  for (size_t i = 0; i < plot.values.size(); ++i) {
    if (!std::isfinite(plot.values[i])) continue;
    const double y = page.y(plot.values[i]), zero = page.y(0);
    cairo_set_source_rgb(context, blue[0], blue[1], blue[2]);
    cairo_rectangle(context, page.x(i) - half, std::min(y, zero), 2 * half, std::abs(y - zero));
    cairo_fill(context);
    cairo_set_source_rgb(context, 0, 0, 0);
    if (!plot.errors.empty() && std::isfinite(plot.errors[i]))
      draw_line(context, page.x(i), page.y(plot.values[i] - plot.errors[i]), page.x(i),
                page.y(plot.values[i] + plot.errors[i]), 0.7);
  }
  for (size_t i = 0; i < plot.marks.size(); ++i) {
    if (!std::isfinite(plot.marks[i])) continue;
    cairo_set_source_rgb(context, vermilion[0], vermilion[1], vermilion[2]);
    cairo_arc(context, page.x(i), page.y(plot.marks[i]), std::clamp(half, 1.2, 2.6), 0, 2 * 3.14159265358979);
    cairo_fill(context);
  }
  cairo_set_source_rgb(context, 0, 0, 0);
}

void draw_legend(cairo_t* context, const BarPlot& plot, const Page& page) {
  if (plot.marks.empty()) return;
  const double y = page.top - gap - (page.ticks.exponent != 0 ? 1.3 * tick_size : 0);
  double x = page.left + 30;
  cairo_set_source_rgb(context, blue[0], blue[1], blue[2]);
  cairo_rectangle(context, x, y - 0.7 * note_size, 8, 0.8 * note_size);
  cairo_fill(context);
  cairo_set_source_rgb(context, 0, 0, 0);
  draw_text(context, plot.value_name, note_size, x + 12, y, 0);
  x += 12 + text_size(plot.value_name, note_size).width + 20;
  cairo_set_source_rgb(context, vermilion[0], vermilion[1], vermilion[2]);
  cairo_arc(context, x, y - 0.35 * note_size, 2.6, 0, 2 * 3.14159265358979);
  cairo_fill(context);
  cairo_set_source_rgb(context, 0, 0, 0);
  draw_text(context, plot.mark_name, note_size, x + 8, y, 0);
}

}  // namespace

void write_bars(const BarPlot& plot, const std::filesystem::path& path) {
  require_lengths(plot);
  const Page page = make_page(plot);
  for (const auto& file : figure_files(path))
    write_figure(file, page.width, page.height, plot.title, [&](cairo_t* context) {
      draw_values(context, plot, page);
      draw_axis(context, plot, page);
      draw_names(context, plot, page);
      draw_legend(context, plot, page);
      const double y = page.top + frame_height + tick_length + gap + page.below + gap;
      for (size_t i = 0; i < plot.notes.size(); ++i)
        draw_text(context, plot.notes[i], note_size, pad, y + 1.4 * note_size * (static_cast<double>(i) + 0.8), 0);
    });
}

}  // namespace hesper
