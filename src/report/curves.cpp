#include "report/curves.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "report/figure.h"

namespace hesper {
namespace {

constexpr double title_size = 10, label_size = 9, tick_size = 8, legend_size = 8;  // points
constexpr double pad = 10, gap = 4, tick_length = 3.5;
constexpr double frame_width = 330, frame_height = 230, marker = 2.6, legend_line = 20;

// Okabe and Ito's colours, told apart with every kind of colour vision.
constexpr std::array<uint32_t, 7> palette = {0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7, 0xe69f00, 0x56b4e9, 0x000000};

struct Axis {
  bool log = false;
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  Ticks ticks;

  double scaled(double value) const { return log ? std::log10(value) : value; }
  double share(double value) const { return (scaled(value) - scaled(low)) / (scaled(high) - scaled(low)); }
  void include(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  // Room of 5% at both ends; a single value gets some to either side.
  void finish(int most) {
    if (low == high) {
      const double room = log ? 0.5 * low : (low == 0 ? 1 : 0.5 * std::abs(low));
      low -= room;
      high += room;
    }
    if (log) {
      const double room = std::pow(high / low, 0.05);
      low /= room;
      high *= room;
    } else {
      const double room = 0.05 * (high - low);
      low -= room;
      high += room;
    }
    ticks = log ? log_ticks(low, high, most) : round_ticks(low, high, most);
  }
};

bool drawn(const Series& series, size_t i) { return std::isfinite(series.x[i]) && std::isfinite(series.y[i]); }

double error_of(const Series& series, size_t i) {
  return series.error.empty() || !std::isfinite(series.error[i]) ? 0 : std::abs(series.error[i]);
}

struct Page {
  Axis x, y;
  double left = 0, top = 0;  // corner of the frame
  double width = 0, height = 0;
  std::vector<std::string> title;
};

Page make_page(const CurvePlot& plot) {
  Page page;
  page.x.log = plot.log_x;
  page.y.log = plot.log_y;
  size_t points = 0;
  double legend = 0;
  for (const Series& series : plot.series) {
    if (series.x.size() != series.y.size() || (!series.error.empty() && series.error.size() != series.y.size())) {
      throw std::invalid_argument(fmt::format("curve '{}': {} x, {} y and {} errors", series.name, series.x.size(),
                                              series.y.size(), series.error.size()));
    }
    for (size_t i = 0; i < series.x.size(); ++i) {
      if (!drawn(series, i)) continue;
      if ((plot.log_x && series.x[i] <= 0) || (plot.log_y && series.y[i] <= 0)) {
        throw std::invalid_argument(fmt::format("curve '{}': the point ({:g}, {:g}) has no place on a logarithmic axis",
                                                series.name, series.x[i], series.y[i]));
      }
      const double error = error_of(series, i);
      page.x.include(series.x[i]);
      page.y.include(series.y[i]);
      page.y.include(series.y[i] + error);
      if (!plot.log_y || error < series.y[i]) page.y.include(series.y[i] - error);
      ++points;
    }
    legend = std::max(legend, text_size(series.name, legend_size).width);
  }
  if (points == 0) throw std::invalid_argument(fmt::format("nothing to draw in '{}'", plot.title));
  page.x.finish(8);
  page.y.finish(8);

  double y_labels = text_size("10\u221210", tick_size).width;
  for (const std::string& label : page.y.ticks.labels) y_labels = std::max(y_labels, text_size(label, tick_size).width);
  page.left = std::ceil(pad + 1.3 * label_size + gap + y_labels + gap + tick_length);
  page.width = std::ceil(page.left + frame_width + 3 * gap + legend_line + gap + legend + pad);
  page.title = wrap_text(plot.title, title_size, page.width - 2 * pad);
  const double power = page.y.ticks.exponent != 0 ? 1.3 * tick_size : 0;
  page.top = std::ceil(pad + 1.3 * title_size * static_cast<double>(page.title.size()) + gap + power);
  const double series_height = 1.6 * legend_size * static_cast<double>(plot.series.size());
  const double below = tick_length + gap + 1.3 * tick_size + gap + 1.3 * label_size + pad;
  page.height = std::ceil(page.top + std::max(frame_height, series_height) + below);
  return page;
}

double x_place(const Page& page, double x) { return page.left + frame_width * page.x.share(x); }
double y_place(const Page& page, double y) { return page.top + frame_height * (1 - page.y.share(y)); }

void draw_tick_label(cairo_t* context, const Ticks& ticks, size_t i, double x, double y, double align) {
  if (ticks.labels[i].empty()) {
    draw_power(context, "", static_cast<int>(std::lround(std::log10(ticks.values[i]))), tick_size, x, y, align);
  } else {
    draw_text(context, ticks.labels[i], tick_size, x, y, align);
  }
}

void draw_axes(cairo_t* context, const Page& page, const CurvePlot& plot) {
  const double bottom = page.top + frame_height, right = page.left + frame_width;
  const double ascent = text_size("0", tick_size).ascent;
  for (size_t i = 0; i < page.x.ticks.values.size(); ++i) {
    const double x = x_place(page, page.x.ticks.values[i]);
    cairo_set_source_rgb(context, 0.88, 0.88, 0.88);
    draw_line(context, x, page.top, x, bottom, 0.4);
    cairo_set_source_rgb(context, 0, 0, 0);
    draw_line(context, x, bottom, x, bottom + tick_length, 0.6);
    draw_tick_label(context, page.x.ticks, i, x, bottom + tick_length + gap + 0.75 * ascent, 0.5);
  }
  for (size_t i = 0; i < page.y.ticks.values.size(); ++i) {
    const double y = y_place(page, page.y.ticks.values[i]);
    cairo_set_source_rgb(context, 0.88, 0.88, 0.88);
    draw_line(context, page.left, y, right, y, 0.4);
    cairo_set_source_rgb(context, 0, 0, 0);
    draw_line(context, page.left - tick_length, y, page.left, y, 0.6);
    draw_tick_label(context, page.y.ticks, i, page.left - tick_length - gap, y + 0.36 * ascent, 1);
  }
  draw_frame(context, page.left, page.top, frame_width, frame_height);
  const std::string times = "\u00d7";
  const double label_y = bottom + tick_length + gap + 1.3 * tick_size + gap + label_size;
  if (page.y.ticks.exponent != 0)
    draw_power(context, times, page.y.ticks.exponent, tick_size, page.left, page.top - gap, 0);
  if (page.x.ticks.exponent != 0) draw_power(context, times, page.x.ticks.exponent, tick_size, right, label_y, 1);
  draw_text(context, plot.x_label, label_size, page.left + frame_width / 2, label_y, 0.5);
  draw_text(context, plot.y_label, label_size, pad + 0.8 * label_size, page.top + frame_height / 2, 0.5, true);
}

// Circle, square, triangle, diamond in turn.
void draw_marker(cairo_t* context, size_t kind, double x, double y) {
  cairo_new_path(context);
  if (kind % 4 == 0) {
    cairo_arc(context, x, y, marker, 0, 2 * M_PI);
  } else if (kind % 4 == 1) {
    cairo_rectangle(context, x - 0.9 * marker, y - 0.9 * marker, 1.8 * marker, 1.8 * marker);
  } else if (kind % 4 == 2) {
    cairo_move_to(context, x, y - 1.2 * marker);
    cairo_line_to(context, x + 1.1 * marker, y + 0.8 * marker);
    cairo_line_to(context, x - 1.1 * marker, y + 0.8 * marker);
  } else {
    cairo_move_to(context, x, y - 1.3 * marker);
    cairo_line_to(context, x + 1.3 * marker, y);
    cairo_line_to(context, x, y + 1.3 * marker);
    cairo_line_to(context, x - 1.3 * marker, y);
  }
  cairo_close_path(context);
  cairo_fill(context);
}

void set_colour(cairo_t* context, size_t kind) {
  const uint32_t rgb = palette[kind % palette.size()];
  cairo_set_source_rgb(context, (rgb >> 16 & 255) / 255.0, (rgb >> 8 & 255) / 255.0, (rgb & 255) / 255.0);
}

void draw_series(cairo_t* context, const Page& page, const Series& series, size_t kind) {
  set_colour(context, kind);
  cairo_set_line_width(context, 1.2);
  cairo_new_path(context);
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (drawn(series, i)) {
      cairo_line_to(context, x_place(page, series.x[i]), y_place(page, series.y[i]));
    } else {
      cairo_new_sub_path(context);
    }
  }
  cairo_stroke(context);
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (!drawn(series, i)) continue;
    const double x = x_place(page, series.x[i]), error = error_of(series, i);
    if (error > 0) {
      const double top = y_place(page, series.y[i] + error);
      const double bottom = y_place(page, std::max(page.y.low, series.y[i] - error));
      draw_line(context, x, top, x, bottom, 0.8);
      draw_line(context, x - marker, top, x + marker, top, 0.8);
      draw_line(context, x - marker, bottom, x + marker, bottom, 0.8);
    }
    if (series.markers) draw_marker(context, kind, x, y_place(page, series.y[i]));
  }
}

void draw_legend(cairo_t* context, const Page& page, const CurvePlot& plot) {
  const double x = page.left + frame_width + 3 * gap;
  for (size_t i = 0; i < plot.series.size(); ++i) {
    const double y = page.top + 1.6 * legend_size * (static_cast<double>(i) + 0.5);
    set_colour(context, i);
    draw_line(context, x, y, x + legend_line, y, 1.2);
    if (plot.series[i].markers) draw_marker(context, i, x + legend_line / 2, y);
    cairo_set_source_rgb(context, 0, 0, 0);
    draw_text(context, plot.series[i].name, legend_size, x + legend_line + gap, y + 0.35 * legend_size, 0);
  }
}

}  // namespace

void write_curves(const CurvePlot& plot, const std::filesystem::path& path) {
  const Page page = make_page(plot);
  for (const std::filesystem::path& file : figure_files(path)) {
    write_figure(file, page.width, page.height, plot.title, [&](cairo_t* context) {
      double y = pad + 0.9 * title_size;
      for (const std::string& line : page.title) {
        draw_text(context, line, title_size, page.width / 2, y, 0.5);
        y += 1.3 * title_size;
      }
      draw_axes(context, page, plot);
      for (size_t i = 0; i < plot.series.size(); ++i) draw_series(context, page, plot.series[i], i);
      cairo_set_source_rgb(context, 0, 0, 0);
      draw_legend(context, page, plot);
    });
  }
}

}  // namespace hesper
