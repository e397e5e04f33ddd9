#include "report/heat_map.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>

#include "report/figure.h"
#include "report/viridis.h"

namespace hesper {
namespace {

constexpr int target_pixels = 1200;  // longer side of the matrix in the .png
constexpr double max_aspect = 6;     // long thin matrices have oblong cells
constexpr uint32_t grey = 0xb4b4b4;
constexpr float not_finite = std::numeric_limits<float>::quiet_NaN();

constexpr double title_size = 10, label_size = 9, tick_size = 8;  // points
constexpr double pad = 10, gap = 4, tick_length = 3.5, bar_gap = 14, bar_width = 13;

// |values| (rows, cols) float32 on the CPU, NaN where not finite.
at::Tensor magnitudes(const HeatMap& map) {
  const at::Tensor& values = map.values;
  if (!values.defined() || values.dim() < 1 || values.dim() > 2 || values.numel() == 0) {
    throw std::invalid_argument(
        values.defined() ? fmt::format("a heat map needs a matrix, not shape ({})", fmt::join(values.sizes(), ", "))
                         : "a heat map needs a matrix");
  }
  const at::Tensor matrix = values.dim() == 1 ? values.unsqueeze(0) : values;
  const at::Tensor magnitude = matrix.detach().to(at::kCPU, at::kDouble).abs().to(at::kFloat).contiguous();
  return magnitude.masked_fill(at::isinf(magnitude), not_finite);
}

void check_groups(const HeatMap& map, int64_t rows, int64_t cols) {
  if (map.groups.empty()) return;
  int64_t next = 0;
  for (const AxisGroup& group : map.groups) {
    if (group.begin != next || group.end <= group.begin) {
      throw std::invalid_argument(fmt::format("heat map: group '{}' is [{}, {}), expected to begin at {}", group.label,
                                              group.begin, group.end, next));
    }
    next = group.end;
  }
  if (rows != cols || next != rows) {
    throw std::invalid_argument(fmt::format("heat map: groups end at {} in a matrix of {} x {}", next, rows, cols));
  }
}

struct Range {
  double low = 0, high = 0;  // equal for a constant matrix
};

// 0th to 98th percentile (linear interpolation between order statistics) of the finite values; to the maximum where
// these coincide, as in a matrix with few entries that are not zero.
Range colour_range(const at::Tensor& magnitude) {
  std::vector<float> finite;
  finite.reserve(static_cast<size_t>(magnitude.numel()));
  const float* data = magnitude.const_data_ptr<float>();
  std::copy_if(data, data + magnitude.numel(), std::back_inserter(finite), [](float x) { return !std::isnan(x); });
  if (finite.empty()) return {};
  const double place = 0.98 * static_cast<double>(finite.size() - 1);
  const auto below = finite.begin() + static_cast<std::ptrdiff_t>(place);
  std::nth_element(finite.begin(), below, finite.end());
  const double low = *std::min_element(finite.begin(), below + 1);
  const double lower = *below;
  const double upper = below + 1 == finite.end() ? lower : *std::min_element(below + 1, finite.end());
  double high = lower + (place - std::floor(place)) * (upper - lower);
  if (high <= low) high = *std::max_element(below, finite.end());
  return {low, high};
}

// One axis of the matrix on the page: `cells` after averaging runs of `factor`, each `pixels` wide in the .png.
struct Axis {
  int64_t size = 0;
  int factor = 1, cells = 1, pixels = 1;
  double length() const { return cells * pixels / png_scale; }                                           // points
  double place(double index) const { return length() * index / (static_cast<double>(factor) * cells); }  // of an edge
};

Axis make_axis(int64_t size, int target) {
  Axis axis{.size = size};
  axis.factor = static_cast<int>((size + target - 1) / target);
  axis.cells = static_cast<int>((size + axis.factor - 1) / axis.factor);
  axis.pixels = std::max(1, static_cast<int>(std::lround(static_cast<double>(target) / axis.cells)));
  return axis;
}

// (rows, cols) of means, NaN where a cell of the square is NaN.
at::Tensor reduced(const at::Tensor& magnitude, const Axis& rows, const Axis& cols) {
  if (rows.factor == 1 && cols.factor == 1) return magnitude;
  at::Tensor out = at::empty({rows.cells, cols.cells}, at::kFloat);
  const float* in = magnitude.const_data_ptr<float>();
  float* mean = out.mutable_data_ptr<float>();
  std::vector<double> sums(static_cast<size_t>(cols.cells));
  for (int64_t r = 0; r < rows.cells; ++r) {
    const int64_t begin = r * rows.factor, end = std::min(begin + rows.factor, rows.size);
    std::fill(sums.begin(), sums.end(), 0.0);
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < cols.size; ++j) sums[static_cast<size_t>(j / cols.factor)] += in[i * cols.size + j];
    }
    for (int64_t c = 0; c < cols.cells; ++c) {
      const int64_t width = std::min<int64_t>(cols.factor, cols.size - c * cols.factor);
      mean[r * cols.cells + c] =
          static_cast<float>(sums[static_cast<size_t>(c)] / static_cast<double>((end - begin) * width));
    }
  }
  return out;
}

uint32_t colour(double value, const Range& range) {
  if (std::isnan(value)) return grey;
  if (range.high <= range.low) return viridis.front();
  const double place = (value - range.low) / (range.high - range.low) * 256;
  return viridis[static_cast<size_t>(std::clamp(place, 0.0, 255.0))];
}

// Groups after which the layer names repeat ("0.fc1", "0.fc2", "1.fc1", ...: 2), 0 when they do not.
size_t label_period(const std::vector<AxisGroup>& groups) {
  const auto layer = [&](size_t i) {
    const size_t dot = groups[i].label.find_first_of(". ");
    return dot == std::string::npos ? groups[i].label : groups[i].label.substr(dot);
  };
  for (size_t period = 1; 2 * period <= groups.size(); ++period) {
    bool repeats = true;
    for (size_t i = period; i < groups.size() && repeats; ++i) repeats = layer(i) == layer(i - period);
    if (repeats) return period;
  }
  return 0;
}

// Labels of a grouped axis that would touch are thinned to every step-th, at the border it begins with; a step that
// keeps the same layer of every block is preferred.
size_t label_step(const std::vector<AxisGroup>& groups, const Axis& axis, double room) {
  const size_t period = label_period(groups);
  for (size_t step = 1; step < groups.size(); ++step) {
    if (step > 1 && period > 1 && period < groups.size() / 2 && step % period != 0) continue;
    bool fits = true;
    for (size_t i = 0; i + step < groups.size() && fits; i += step) {
      const auto at = [&](const AxisGroup& group) {
        return step > 1 ? axis.place(static_cast<double>(group.begin))
                        : axis.place(0.5 * static_cast<double>(group.begin + group.end));
      };
      fits = at(groups[i + step]) - at(groups[i]) >= room;
    }
    if (fits) return step;
  }
  return groups.size();
}

struct Tick {
  double place = 0;  // points along the axis
  std::string label;
};

std::vector<Tick> index_ticks(const Axis& axis, double room) {
  const auto most = std::max(2, static_cast<int>(axis.length() / room));
  std::vector<Tick> ticks;
  const double last = static_cast<double>(axis.size - 1);
  if (axis.size == 1) return {{axis.place(0.5), "0"}};
  for (const double index : round_ticks(0, last, std::min(most, 11)).values) {
    if (index == std::floor(index)) ticks.push_back({axis.place(index + 0.5), fmt::format("{:.0f}", index)});
  }
  return ticks;
}

std::vector<Tick> group_ticks(const std::vector<AxisGroup>& groups, const Axis& axis, size_t step, double max_width) {
  std::vector<Tick> ticks;
  for (size_t i = 0; i < groups.size(); i += step) {
    const double middle = 0.5 * static_cast<double>(groups[i].begin + groups[i].end);
    ticks.push_back({axis.place(step > 1 ? static_cast<double>(groups[i].begin) : middle),
                     fit_text(groups[i].label, tick_size, max_width)});
  }
  return ticks;
}

double widest(const std::vector<Tick>& ticks) {
  double width = 0;
  for (const Tick& tick : ticks) width = std::max(width, text_size(tick.label, tick_size).width);
  return width;
}

// Everything measured before anything is drawn; lengths in points.
struct Page {
  Axis rows, cols;
  std::vector<Tick> x_ticks, y_ticks;
  bool x_vertical = false;      // labels of the x axis read upwards
  std::vector<double> borders;  // between layers, along either axis
  Range range;
  Ticks bar;
  std::vector<std::string> title;
  double x = 0, y = 0;  // corner of the matrix
  double width = 0, height = 0;
};

double line_height(double size) { return 1.3 * size; }

Page make_page(const HeatMap& map, const at::Tensor& magnitude) {
  Page page;
  const int64_t rows = magnitude.size(0), cols = magnitude.size(1);
  check_groups(map, rows, cols);
  const double aspect = std::clamp(static_cast<double>(cols) / static_cast<double>(rows), 1 / max_aspect, max_aspect);
  page.cols = make_axis(cols, static_cast<int>(target_pixels * std::min(1.0, aspect)));
  page.rows = make_axis(rows, static_cast<int>(target_pixels * std::min(1.0, 1 / aspect)));

  if (map.groups.size() > 1) {
    constexpr double max_label = 170;
    const size_t step = label_step(map.groups, page.rows, line_height(tick_size));
    page.x_ticks = page.y_ticks = group_ticks(map.groups, page.rows, step, max_label);
    double room = std::numeric_limits<double>::infinity();
    for (const AxisGroup& group : map.groups) {
      room = std::min(room, page.cols.place(static_cast<double>(group.end - group.begin)));
    }
    page.x_vertical = step > 1 || widest(page.x_ticks) + 2 * gap > room;
    for (size_t i = step; i < map.groups.size(); i += step) {
      page.borders.push_back(page.rows.place(static_cast<double>(map.groups[i].begin)));
    }
  } else {
    page.x_ticks = index_ticks(page.cols, 40);
    page.y_ticks = index_ticks(page.rows, 24);
  }

  page.range = colour_range(magnitude);
  if (page.range.high > page.range.low) {
    page.bar =
        round_ticks(page.range.low, page.range.high, std::clamp(static_cast<int>(page.rows.length() / 40), 3, 9));
  } else {
    page.bar = {{page.range.low}, {fmt::format("{:.3g}", page.range.low)}, 0};
  }
  double bar_labels = 0;
  for (const std::string& label : page.bar.labels) bar_labels = std::max(bar_labels, text_size(label, tick_size).width);

  const double left = pad + line_height(label_size) + gap + widest(page.y_ticks) + gap + tick_length;
  const double right = bar_gap + bar_width + tick_length + gap + bar_labels + gap + line_height(label_size) + pad;
  page.width = std::ceil(left + page.cols.length() + right);
  page.title = wrap_text(map.title, title_size, page.width - 2 * pad);
  const double power = page.bar.exponent != 0 ? line_height(tick_size) : 0;  // above the colour bar
  const double top = pad + line_height(title_size) * static_cast<double>(page.title.size()) + gap + power;
  const double x_labels = page.x_vertical ? widest(page.x_ticks) : line_height(tick_size);
  const double bottom = tick_length + gap + x_labels + gap + line_height(label_size) + pad;
  page.x = std::ceil(left);
  page.y = std::ceil(top);  // whole points, so that cells fall on whole pixels
  page.height = std::ceil(page.y + page.rows.length() + bottom);
  return page;
}

// The reduced matrix as one image, one pixel a cell.
void draw_cells(cairo_t* context, const Page& page, const at::Tensor& cells) {
  const std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)> image(
      cairo_image_surface_create(CAIRO_FORMAT_RGB24, page.cols.cells, page.rows.cells), cairo_surface_destroy);
  unsigned char* pixels = cairo_image_surface_get_data(image.get());
  if (pixels == nullptr) throw std::runtime_error("heat map: no memory for the picture");
  const int stride = cairo_image_surface_get_stride(image.get());
  const float* value = cells.const_data_ptr<float>();
  for (int64_t r = 0; r < page.rows.cells; ++r) {
    auto* line = reinterpret_cast<uint32_t*>(pixels + r * stride);
    for (int64_t c = 0; c < page.cols.cells; ++c) line[c] = colour(*value++, page.range);
  }
  cairo_surface_mark_dirty(image.get());

  cairo_save(context);
  cairo_translate(context, page.x, page.y);
  cairo_scale(context, page.cols.pixels / png_scale, page.rows.pixels / png_scale);
  cairo_set_source_surface(context, image.get(), 0, 0);
  cairo_pattern_set_filter(cairo_get_source(context), CAIRO_FILTER_NEAREST);
  cairo_paint(context);
  cairo_restore(context);
}

void draw_axes(cairo_t* context, const Page& page, const HeatMap& map) {
  const double width = page.cols.length(), height = page.rows.length();
  const double bottom = page.y + height;
  cairo_set_source_rgba(context, 1, 1, 1, page.borders.size() < 20 ? 0.8 : 0.5);
  for (const double border : page.borders) {
    draw_line(context, page.x + border, page.y, page.x + border, bottom, 0.4);
    draw_line(context, page.x, page.y + border, page.x + width, page.y + border, 0.4);
  }
  cairo_set_source_rgb(context, 0, 0, 0);
  draw_frame(context, page.x, page.y, width, height);

  const double middle = text_size("0", tick_size).ascent * 0.36;  // from the middle of a digit to its baseline
  for (const Tick& tick : page.x_ticks) {
    const double x = page.x + tick.place, y = bottom + tick_length;
    draw_line(context, x, bottom, x, y, 0.6);
    if (page.x_vertical) {
      draw_text(context, tick.label, tick_size, x + middle, y + gap, 1, true);
    } else {
      draw_text(context, tick.label, tick_size, x, y + gap + text_size("0", tick_size).ascent * 0.75, 0.5);
    }
  }
  for (const Tick& tick : page.y_ticks) {
    const double x = page.x - tick_length, y = page.y + tick.place;
    draw_line(context, x, y, page.x, y, 0.6);
    draw_text(context, tick.label, tick_size, x - gap, y + middle, 1);
  }
  draw_text(context, map.x_label, label_size, page.x + width / 2, page.height - pad, 0.5);
  draw_text(context, map.y_label, label_size, pad + label_size * 0.8, page.y + height / 2, 0.5, true);
}

void draw_colour_bar(cairo_t* context, const Page& page) {
  const double x = page.x + page.cols.length() + bar_gap, height = page.rows.length();
  const bool constant = page.range.high <= page.range.low;
  const int steps = constant ? 1 : 256;
  for (int i = 0; i < steps; ++i) {
    const uint32_t rgb = viridis[static_cast<size_t>(i)];
    cairo_set_source_rgb(context, (rgb >> 16 & 255) / 255.0, (rgb >> 8 & 255) / 255.0, (rgb & 255) / 255.0);
    // Each step reaches to the top, the next one covers it: no seams.
    cairo_rectangle(context, x, page.y, bar_width, height * (steps - i) / steps);
    cairo_fill(context);
  }
  cairo_set_source_rgb(context, 0, 0, 0);
  draw_frame(context, x, page.y, bar_width, height);

  const double right = x + bar_width + tick_length;
  double widest_label = 0;
  for (size_t i = 0; i < page.bar.values.size(); ++i) {
    const double share = constant ? 0.5 : (page.bar.values[i] - page.range.low) / (page.range.high - page.range.low);
    const double y = page.y + height * (1 - share);
    draw_line(context, x + bar_width, y, right, y, 0.6);
    draw_text(context, page.bar.labels[i], tick_size, right + gap, y + text_size("0", tick_size).ascent * 0.36, 0);
    widest_label = std::max(widest_label, text_size(page.bar.labels[i], tick_size).width);
  }
  if (page.bar.exponent != 0) draw_power(context, "\u00d7", page.bar.exponent, tick_size, x, page.y - gap, 0);
  draw_text(context, "Values", label_size, right + gap + widest_label + gap + label_size, page.y + height / 2, 0.5,
            true);
}

}  // namespace

void write_heat_map(const HeatMap& map, const std::filesystem::path& path) {
  const at::Tensor magnitude = magnitudes(map);
  const Page page = make_page(map, magnitude);
  const at::Tensor cells = reduced(magnitude, page.rows, page.cols);
  for (const std::filesystem::path& file : figure_files(path)) {
    write_figure(file, page.width, page.height, map.title, [&](cairo_t* context) {
      double y = pad + title_size * 0.9;
      for (const std::string& line : page.title) {
        draw_text(context, line, title_size, page.width / 2, y, 0.5);
        y += line_height(title_size);
      }
      draw_cells(context, page, cells);
      draw_axes(context, page, map);
      draw_colour_bar(context, page);
    });
  }
}

HeatMapLayout heat_map_layout(const HeatMap& map) {
  const Page page = make_page(map, magnitudes(map));
  const auto pixels = [](double points) { return static_cast<int>(std::lround(points * png_scale)); };
  return {.x = pixels(page.x),
          .y = pixels(page.y),
          .rows = page.rows.cells,
          .cols = page.cols.cells,
          .cell_width = page.cols.pixels,
          .cell_height = page.rows.pixels,
          .width = pixels(page.width),
          .height = pixels(page.height)};
}

}  // namespace hesper
