#include "report/figure.h"

#include <cairo/cairo-pdf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>

#include "files/atomic_file.h"

namespace hesper {
namespace {

struct SurfaceDeleter {
  void operator()(cairo_surface_t* surface) const { cairo_surface_destroy(surface); }
};
struct ContextDeleter {
  void operator()(cairo_t* context) const { cairo_destroy(context); }
};
using Surface = std::unique_ptr<cairo_surface_t, SurfaceDeleter>;
using Context = std::unique_ptr<cairo_t, ContextDeleter>;

cairo_status_t to_stream(void* stream, const unsigned char* data, unsigned int size) {
  auto& out = *static_cast<std::ostream*>(stream);
  out.write(reinterpret_cast<const char*>(data), size);
  return out ? CAIRO_STATUS_SUCCESS : CAIRO_STATUS_WRITE_ERROR;
}

void draw_page(cairo_surface_t* surface, double scale, const std::function<void(cairo_t*)>& draw) {
  const Context context(cairo_create(surface));
  cairo_scale(context.get(), scale, scale);
  cairo_set_source_rgb(context.get(), 1, 1, 1);
  cairo_paint(context.get());
  cairo_set_source_rgb(context.get(), 0, 0, 0);
  draw(context.get());
}

// A failed write is told by write_file_atomically with its reason; anything else here.
void check(cairo_status_t status, const std::filesystem::path& path) {
  if (status == CAIRO_STATUS_SUCCESS || status == CAIRO_STATUS_WRITE_ERROR) return;
  throw std::runtime_error(fmt::format("cannot draw {}: {}", path.string(), cairo_status_to_string(status)));
}

void select_font(cairo_t* context, double size) {
  cairo_select_font_face(context, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size(context, size);
}

// Labels of a size of text do not depend on the page: measured on an unhinted scratch surface.
cairo_t* measuring_context() {
  thread_local const Surface surface(cairo_image_surface_create(CAIRO_FORMAT_A8, 1, 1));
  thread_local const Context context = [] {
    Context made(cairo_create(surface.get()));
    cairo_font_options_t* options = cairo_font_options_create();
    cairo_font_options_set_hint_metrics(options, CAIRO_HINT_METRICS_OFF);
    cairo_set_font_options(made.get(), options);
    cairo_font_options_destroy(options);
    return made;
  }();
  return context.get();
}

}  // namespace

void write_figure(const std::filesystem::path& path, double width, double height, const std::string& title,
                  const std::function<void(cairo_t*)>& draw) {
  if (path.extension() == ".pdf") {
    write_file_atomically(path, [&](std::ostream& out) {
      const Surface surface(cairo_pdf_surface_create_for_stream(to_stream, &out, width, height));
      cairo_pdf_surface_restrict_to_version(surface.get(), CAIRO_PDF_VERSION_1_4);  // every reader has it
      cairo_pdf_surface_set_metadata(surface.get(), CAIRO_PDF_METADATA_TITLE, title.c_str());
      draw_page(surface.get(), 1, draw);
      cairo_surface_finish(surface.get());
      check(cairo_surface_status(surface.get()), path);
    });
  } else if (path.extension() == ".png") {
    const Surface surface(cairo_image_surface_create(CAIRO_FORMAT_RGB24,
                                                     static_cast<int>(std::lround(width * png_scale)),
                                                     static_cast<int>(std::lround(height * png_scale))));
    draw_page(surface.get(), png_scale, draw);
    check(cairo_surface_status(surface.get()), path);
    write_file_atomically(path, [&](std::ostream& out) {
      check(cairo_surface_write_to_png_stream(surface.get(), to_stream, &out), path);
    });
  } else {
    throw std::invalid_argument(fmt::format("{}: a picture is a .pdf or a .png file", path.string()));
  }
}

std::vector<std::filesystem::path> figure_files(const std::filesystem::path& path) {
  if (path.extension() == ".pdf" || path.extension() == ".png") return {path};
  return {path.string() + ".pdf", path.string() + ".png"};
}

TextSize text_size(const std::string& text, double size) {
  cairo_t* context = measuring_context();
  select_font(context, size);
  cairo_text_extents_t extents;
  cairo_font_extents_t font;
  cairo_text_extents(context, text.c_str(), &extents);
  cairo_font_extents(context, &font);
  return {extents.x_advance, font.ascent, font.descent};
}

void draw_text(cairo_t* context, const std::string& text, double size, double x, double y, double align,
               bool vertical) {
  cairo_save(context);
  select_font(context, size);
  cairo_translate(context, x, y);
  if (vertical) cairo_rotate(context, -M_PI / 2);
  cairo_move_to(context, -align * text_size(text, size).width, 0);
  cairo_show_text(context, text.c_str());
  cairo_restore(context);
}

namespace {
std::vector<std::string> fill_lines(const std::string& text, double size, double width) {
  std::vector<std::string> lines;
  std::string line;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    const std::string longer = line.empty() ? word : line + " " + word;
    if (!line.empty() && text_size(longer, size).width > width) {
      lines.push_back(line);
      line = word;
    } else {
      line = longer;
    }
    begin = end + 1;
  }
  if (!line.empty()) lines.push_back(line);
  return lines;
}
}  // namespace

std::vector<std::string> wrap_text(const std::string& text, double size, double width) {
  std::vector<std::string> lines = fill_lines(text, size, width);
  // The narrowest width that takes no more lines: no last line of one word.
  const size_t count = lines.size();
  for (double low = 0, high = width; count > 1 && high - low > 1;) {
    const double middle = (low + high) / 2;
    const std::vector<std::string> narrower = fill_lines(text, size, middle);
    if (narrower.size() == count) lines = narrower;
    (narrower.size() == count ? high : low) = middle;
  }
  for (std::string& each : lines) each = fit_text(each, size, width);
  return lines;
}

std::string fit_text(const std::string& text, double size, double width) {
  if (text_size(text, size).width <= width) return text;
  for (size_t begin = 1; begin < text.size(); ++begin) {
    if ((static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) continue;  // inside a UTF-8 character
    const std::string shorter = "\u2026" + text.substr(begin);
    if (text_size(shorter, size).width <= width) return shorter;
  }
  return "";
}

void draw_line(cairo_t* context, double x0, double y0, double x1, double y1, double width) {
  cairo_set_line_width(context, width);
  cairo_move_to(context, x0, y0);
  cairo_line_to(context, x1, y1);
  cairo_stroke(context);
}

void draw_frame(cairo_t* context, double x, double y, double width, double height) {
  cairo_set_line_width(context, 0.6);
  cairo_rectangle(context, x - 0.3, y - 0.3, width + 0.6, height + 0.6);  // outside the area, covering nothing of it
  cairo_stroke(context);
}

Ticks round_ticks(double low, double high, int most) {
  Ticks ticks;
  int power = static_cast<int>(std::floor(std::log10(high - low))) - 2;  // of the step
  int64_t first = 0, last = 0;
  double step = 0;
  for (bool found = false; !found; ++power) {
    for (const int digit : {1, 2, 5}) {
      step = digit * std::pow(10.0, power);
      first = static_cast<int64_t>(std::ceil(low / step - 1e-9));
      last = static_cast<int64_t>(std::floor(high / step + 1e-9));
      if (last - first < most) {
        found = true;
        break;
      }
    }
    if (found) break;
  }
  const double largest = std::max(std::abs(low), std::abs(high));
  const int magnitude = static_cast<int>(std::floor(std::log10(largest) + 1e-9));
  ticks.exponent = magnitude < -2 || magnitude > 4 ? magnitude : 0;
  const int decimals = std::max(0, ticks.exponent - power);
  for (int64_t i = first; i <= last; ++i) {
    const double value = static_cast<double>(i) * step;
    ticks.values.push_back(value);
    ticks.labels.push_back(fmt::format("{:.{}f}", value / std::pow(10.0, ticks.exponent), decimals));
  }
  return ticks;
}

Ticks log_ticks(double low, double high, int most) {
  Ticks ticks;
  const int first = static_cast<int>(std::floor(std::log10(low)));
  const int last = static_cast<int>(std::floor(std::log10(high) + 1e-9));
  for (int power = first; power <= last; ++power) {
    for (const int digit : {1, 2, 5}) {
      const double value = digit * std::pow(10.0, power);
      if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) ticks.values.push_back(value);
    }
  }
  if (static_cast<int>(ticks.values.size()) <= most) {
    for (const double value : ticks.values) ticks.labels.push_back(fmt::format("{:g}", value));
    return ticks;
  }
  ticks.values.clear();
  const int lowest = static_cast<int>(std::ceil(std::log10(low) - 1e-9));
  const int step = (last - lowest) / most + 1;
  for (int power = lowest; power <= last; power += step) ticks.values.push_back(std::pow(10.0, power));
  ticks.labels.resize(ticks.values.size());
  return ticks;
}

void draw_power(cairo_t* context, const std::string& prefix, int exponent, double size, double x, double y,
                double align) {
  const std::string base = prefix + "10";
  const std::string raised = fmt::format("{}{}", exponent < 0 ? "\u2212" : "", std::abs(exponent));
  const double base_width = text_size(base, size).width, raised_width = text_size(raised, 0.7 * size).width;
  const double left = x - align * (base_width + raised_width);
  draw_text(context, base, size, left, y, 0);
  draw_text(context, raised, 0.7 * size, left + base_width, y - 0.4 * size, 0);
}

}  // namespace hesper
