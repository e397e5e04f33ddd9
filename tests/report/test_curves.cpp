#include "report/curves.h"

#include <cairo/cairo.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "temporary_folder.h"

namespace hesper {
namespace {

// Where (first and last row and column) a colour is inside the frame of the .png, and how often.
struct Extent {
  int count = 0, left = 1 << 30, right = -1, top = 1 << 30, bottom = -1;
};

Extent find_colour(const std::filesystem::path& path, uint32_t colour) {
  const std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)> surface(
      cairo_image_surface_create_from_png(path.c_str()), cairo_surface_destroy);
  const int width = cairo_image_surface_get_width(surface.get()),
            height = cairo_image_surface_get_height(surface.get());
  const auto pixel = [&](int x, int y) {
    const unsigned char* line =
        cairo_image_surface_get_data(surface.get()) + y * cairo_image_surface_get_stride(surface.get());
    return reinterpret_cast<const uint32_t*>(line)[x] & 0xffffff;
  };
  // Right of the frame at half height nothing is drawn (the legend lies higher): the last dark pixel is its border.
  int right = width - 1;
  while (right > 0 && (pixel(right, height / 2) & 0xff) > 0x80) --right;
  Extent extent;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < right; ++x) {
      if (pixel(x, y) != colour) continue;
      ++extent.count;
      extent.left = std::min(extent.left, x), extent.right = std::max(extent.right, x);
      extent.top = std::min(extent.top, y), extent.bottom = std::max(extent.bottom, y);
    }
  }
  return extent;
}

constexpr uint32_t blue = 0x0072b2, vermilion = 0xd55e00;

TEST(Curves, SeriesLieWhereTheirValuesAre) {
  TemporaryFolder folder;
  CurvePlot plot{"growth", "b", "seconds", false, false, {}};
  plot.series.push_back({"low", {1, 2, 3}, {1, 1, 1}});
  plot.series.push_back({"high", {1, 2, 3}, {2, 2, NAN}});
  write_curves(plot, folder / "c");
  ASSERT_TRUE(std::filesystem::exists(folder / "c.pdf"));
  const Extent low = find_colour(folder / "c.png", blue);
  const Extent high = find_colour(folder / "c.png", vermilion);
  EXPECT_GT(low.count, 100);
  EXPECT_GT(high.count, 100);
  EXPECT_LT(high.bottom, low.top);
  EXPECT_LT(low.bottom - low.top, 20) << "a level line is as high as its markers";
  EXPECT_LT(high.right, low.right) << "the point that is NaN is left out";
  // The second of three equal steps ends the shorter line: half of the longer one, to a marker's width.
  EXPECT_NEAR(high.right - high.left, (low.right - low.left) / 2.0, 16);
}

TEST(Curves, LogarithmicAxesMakePowersStraight) {
  TemporaryFolder folder;
  CurvePlot plot{"powers", "t", "error", true, true, {}};
  plot.series.push_back({"x^2", {1, 10, 100}, {1, 100, 10000}});
  write_curves(plot, folder / "c.png");
  EXPECT_FALSE(std::filesystem::exists(folder / "c.pdf"));
  const Extent all = find_colour(folder / "c.png", blue);
  plot.series[0] = {"x^2", {1, 10, 100}, {1, 100, NAN}};
  plot.series.push_back({"frame", {1, 100}, {10000, 1}});  // crosses the other at its second point only
  write_curves(plot, folder / "d.png");
  const Extent half = find_colour(folder / "d.png", blue);
  EXPECT_NEAR(half.bottom - half.top, (all.bottom - all.top) / 2.0, 16);
}

TEST(Curves, ErrorBarsReachTheirEnds) {
  TemporaryFolder folder;
  CurvePlot plot{"bars", "x", "y", false, false, {}};
  plot.series.push_back({"bar", {1}, {0}, {2}});
  plot.series.push_back({"frame", {0, 2}, {-2, 2}});
  write_curves(plot, folder / "c.png");
  const Extent bar = find_colour(folder / "c.png", blue);
  const Extent frame = find_colour(folder / "c.png", vermilion);
  EXPECT_NEAR(bar.top, frame.top, 12);  // but for the half of a marker
  EXPECT_NEAR(bar.bottom, frame.bottom, 12);
}

TEST(Curves, RefusesBadInput) {
  TemporaryFolder folder;
  const auto refusal = [&](const CurvePlot& plot) {
    return error_of<std::invalid_argument>([&] { write_curves(plot, folder / "c"); });
  };
  EXPECT_NE(refusal({"none", "", "", false, false, {}}).find("nothing to draw"), std::string::npos);
  EXPECT_NE(refusal({"n", "", "", false, false, {{"s", {1, 2}, {1}}}}).find("2 x, 1 y"), std::string::npos);
  EXPECT_NE(refusal({"n", "", "", false, true, {{"s", {1}, {0}}}}).find("logarithmic"), std::string::npos);
  EXPECT_EQ(refusal({"one point", "", "", false, true, {{"s", {0}, {5}}}}), "");
}

}  // namespace
}  // namespace hesper
