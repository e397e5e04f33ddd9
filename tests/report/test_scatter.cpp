#include "report/scatter.h"

#include <cairo/cairo.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "temporary_folder.h"

namespace hesper {
namespace {

struct Place {
  double x, y;  // pixels
};

/// Middle of the pixels of a dot's colour.
Place dots_of(const std::filesystem::path& path) {
  const std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)> surface(
      cairo_image_surface_create_from_png(path.c_str()), cairo_surface_destroy);
  Place sum{0, 0};
  int count = 0;
  for (int y = 0; y < cairo_image_surface_get_height(surface.get()); ++y) {
    const auto* line = reinterpret_cast<const uint32_t*>(cairo_image_surface_get_data(surface.get()) +
                                                         y * cairo_image_surface_get_stride(surface.get()));
    for (int x = 0; x < cairo_image_surface_get_width(surface.get()); ++x)
      if ((line[x] & 0xffffff) == 0x0072b2) sum.x += x, sum.y += y, ++count;
  }
  EXPECT_GT(count, 10);
  return {sum.x / count, sum.y / count};
}

TEST(Scatter, DotsLieWhereTheirValuesAre) {
  const TemporaryFolder folder;
  // Two dots in the corners fix the axes, which all panels share; a third moves.
  const auto dot = [&](double x, double y) {
    ScatterPlot plot{"dots", "x", "y", {{"first", {x, NAN}, {y, 3}}, {"second", {NAN}, {NAN}}}};
    plot.panels[0].x.insert(plot.panels[0].x.end(), {0, 10}), plot.panels[0].y.insert(plot.panels[0].y.end(), {0, 10});
    write_scatter(plot, folder / "s");
    EXPECT_TRUE(std::filesystem::exists(folder / "s.pdf"));
    return dots_of(folder / "s.png");
  };
  const Place middle = dot(5, 5), right = dot(8, 5), up = dot(5, 8);
  EXPECT_GT(right.x, middle.x + 5);
  EXPECT_NEAR(right.y, middle.y, 0.5);
  EXPECT_LT(up.y, middle.y - 5);
  EXPECT_NEAR(up.x, middle.x, 0.5);
}

TEST(Scatter, RefusesWhatCannotBeDrawn) {
  const TemporaryFolder folder;
  EXPECT_THROW(write_scatter({"none", "x", "y", {}}, folder / "s"), std::invalid_argument);
  EXPECT_THROW(write_scatter({"nan", "x", "y", {{"p", {NAN}, {1}}}}, folder / "s"), std::invalid_argument);
  EXPECT_THROW(write_scatter({"lengths", "x", "y", {{"p", {1, 2}, {1}}}}, folder / "s"), std::invalid_argument);
  EXPECT_FALSE(std::filesystem::exists(folder / "s.png"));
}

}  // namespace
}  // namespace hesper
