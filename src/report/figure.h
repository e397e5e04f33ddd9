#pragma once

#include <cairo/cairo.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace hesper {

// What every picture shares: a page in points, text, ticks. Colours are black on white.

inline constexpr double png_scale = 3;  // pixels a point, 216 dpi

// Draws the page of width x height points into `path`, a vector page for .pdf and pixels (3 a point) for .png.
// Throws std::invalid_argument for another extension, std::runtime_error when the file cannot be written.
void write_figure(const std::filesystem::path& path, double width, double height, const std::string& title,
                  const std::function<void(cairo_t*)>& draw);

// The .pdf and the .png of a path without extension; a path that ends in .pdf or .png is that one file.
std::vector<std::filesystem::path> figure_files(const std::filesystem::path& path);

struct TextSize {
  double width = 0, ascent = 0, descent = 0;  // points
};

// Sans-serif text, sizes in points. (x, y) is a point of the baseline: `align` 0 its left end, 0.5 its middle, 1 its
// right end; `vertical` reads bottom to top.
TextSize text_size(const std::string& text, double size);
void draw_text(cairo_t* context, const std::string& text, double size, double x, double y, double align,
               bool vertical = false);

// `text` in as few lines of at most `width` points as there must be, broken at blanks, of about one length.
std::vector<std::string> wrap_text(const std::string& text, double size, double width);

// `text`, its front replaced by an ellipsis where it is wider than `width` points.
std::string fit_text(const std::string& text, double size, double width);

void draw_line(cairo_t* context, double x0, double y0, double x1, double y1, double width);
void draw_frame(cairo_t* context, double x, double y, double width, double height);

struct Ticks {
  std::vector<double> values;
  std::vector<std::string> labels;
  int exponent = 0;  // labels are in units of 10^exponent
};

// At most `most` round values (steps of 1, 2 or 5 times a power of ten) in [low, high], low < high, with labels that
// share one power of ten where plain digits would be long.
Ticks round_ticks(double low, double high, int most);

// 1, 2 and 5 times powers of ten in [low, high], 0 < low < high, where at most `most` of them lie there; else powers of
// ten alone, thinned to `most`, with empty labels (see draw_power).
Ticks log_ticks(double low, double high, int most);

// 10^exponent with a raised exponent, `prefix` before it; placed as draw_text does.
void draw_power(cairo_t* context, const std::string& prefix, int exponent, double size, double x, double y,
                double align);

}  // namespace hesper
