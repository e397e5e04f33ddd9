#include "report/heat_map.h"

#include <cairo/cairo.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "report/figure.h"
#include "report/viridis.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

constexpr uint32_t grey = 0xb4b4b4;

// The .png read back through Cairo.
struct Picture {
  std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)> surface;
  int width, height;

  explicit Picture(const std::filesystem::path& path)
      : surface(cairo_image_surface_create_from_png(path.c_str()), cairo_surface_destroy) {
    EXPECT_EQ(cairo_surface_status(surface.get()), CAIRO_STATUS_SUCCESS);
    width = cairo_image_surface_get_width(surface.get());
    height = cairo_image_surface_get_height(surface.get());
  }
  uint32_t at(int x, int y) const {
    const unsigned char* line =
        cairo_image_surface_get_data(surface.get()) + y * cairo_image_surface_get_stride(surface.get());
    return reinterpret_cast<const uint32_t*>(line)[x] & 0xffffff;
  }
};

Picture draw(const HeatMap& map, const TemporaryFolder& folder) {
  write_heat_map(map, folder / "h");
  EXPECT_TRUE(std::filesystem::exists(folder / "h.pdf"));
  return Picture(folder / "h.png");
}

TEST(HeatMap, CellsHaveTheirColours) {
  TemporaryFolder folder;
  // Magnitudes 0..100: the 98th percentile of 0..100 is exactly 98.
  at::Tensor values = at::arange(101, at::kDouble);
  values = at::cat({values, at::zeros({20})}).slice(0, 0, 101).unsqueeze(0);  // (1, 101)
  values[0][7] = -7;
  const HeatMap map{values, "one row"};
  const HeatMapLayout layout = heat_map_layout(map);
  const Picture picture = draw(map, folder);
  EXPECT_EQ(picture.width, layout.width);
  EXPECT_EQ(picture.height, layout.height);
  ASSERT_EQ(layout.rows, 1);
  ASSERT_EQ(layout.cols, 101);
  for (int c = 0; c < 101; ++c) {
    const auto index = static_cast<size_t>(std::min(255.0, std::floor(c / 98.0 * 256)));
    for (const int x : {0, layout.cell_width - 1}) {  // to the very edges of the cell
      EXPECT_EQ(picture.at(layout.x + c * layout.cell_width + x, layout.y + layout.cell_height / 2), viridis[index])
          << c;
    }
  }
  EXPECT_EQ(picture.at(layout.x, layout.y), viridis[0]);
  EXPECT_EQ(picture.at(2, 2), 0xffffffu);
}

TEST(HeatMap, RowsRunDownwardsAndColumnsToTheRight) {
  TemporaryFolder folder;
  at::Tensor values = at::zeros({3, 5});
  values[1][4] = 1;
  values[2][0] = NAN;
  values[0][2] = INFINITY;
  const HeatMap map{values, "cells"};
  const HeatMapLayout layout = heat_map_layout(map);
  const Picture picture = draw(map, folder);
  const auto cell = [&](int r, int c) {
    return picture.at(layout.x + c * layout.cell_width + 3, layout.y + r * layout.cell_height + 3);
  };
  // 12 of 13 finite values are zero: the 98th percentile lies between 0 and 1, the 1 has the last colour.
  EXPECT_EQ(cell(1, 4), viridis[255]);
  EXPECT_EQ(cell(2, 0), grey);
  EXPECT_EQ(cell(0, 2), grey);
  EXPECT_EQ(cell(0, 0), viridis[0]);
  EXPECT_EQ(cell(2, 4), viridis[0]);
}

TEST(HeatMap, ConstantAndEmptyOfValues) {
  TemporaryFolder folder;
  for (const double value : {0.0, -3.5, 1e-30, 1e30}) {
    const HeatMap map{at::full({4, 4}, value, at::kDouble), "constant"};
    const HeatMapLayout layout = heat_map_layout(map);
    EXPECT_EQ(draw(map, folder).at(layout.x + 1, layout.y + 1), viridis[0]) << value;
  }
  const HeatMap nothing{at::full({4, 4}, NAN), "NaN"};
  const HeatMapLayout layout = heat_map_layout(nothing);
  EXPECT_EQ(draw(nothing, folder).at(layout.x + 1, layout.y + 1), grey);
}

TEST(HeatMap, FewValuesThatAreNotZeroStaySeen) {
  TemporaryFolder folder;
  at::Tensor values = at::zeros({20, 20});
  values[3][4] = 2;  // one of 400: the 98th percentile is 0, the range goes to the maximum
  const HeatMap map{values, ""};
  const HeatMapLayout layout = heat_map_layout(map);
  const Picture picture = draw(map, folder);
  EXPECT_EQ(picture.at(layout.x + 4 * layout.cell_width + 1, layout.y + 3 * layout.cell_height + 1), viridis[255]);
}

TEST(HeatMap, LargeMatricesAreAveraged) {
  TemporaryFolder folder;
  // 5000 x 5000: squares of 5 x 5. Left half 1; right half a chessboard of 0 and 2, whose means are 24/25 and 26/25.
  at::Tensor values = at::ones({5000, 5000});
  const at::Tensor index = at::arange(5000);
  const at::Tensor board = (index.unsqueeze(0) + index.unsqueeze(1)).remainder(2).mul(2).to(at::kFloat);
  values.slice(1, 2500).copy_(board.slice(1, 2500));
  values[4999][0] = NAN;
  const HeatMap map{values, "large"};
  const HeatMapLayout layout = heat_map_layout(map);
  EXPECT_EQ(layout.rows, 1000);
  EXPECT_EQ(layout.cols, 1000);
  const Picture picture = draw(map, folder);
  EXPECT_EQ(picture.at(layout.x + 10, layout.y + 10), viridis[128]);  // range 0..2
  const uint32_t even = picture.at(layout.x + 600, layout.y + 10), odd = picture.at(layout.x + 601, layout.y + 10);
  EXPECT_EQ(even, viridis[122]);  // 0.96 / 2 * 256
  EXPECT_EQ(odd, viridis[133]);   // 1.04 / 2 * 256
  EXPECT_EQ(picture.at(layout.x, layout.y + 999), grey);
  EXPECT_LT(std::filesystem::file_size(folder / "h.pdf"), 4u << 20) << "the page holds a compressed image";
  EXPECT_LT(std::filesystem::file_size(folder / "h.png"), 8u << 20);
}

TEST(HeatMap, ThePdfPageIsThePng) {
  TemporaryFolder folder;
  const HeatMap map{at::randn({32, 32}), "page"};
  const HeatMapLayout layout = heat_map_layout(map);
  write_heat_map(map, folder / "only.pdf");
  EXPECT_FALSE(std::filesystem::exists(folder / "only.png"));
  const std::string pdf = read_bytes(folder / "only.pdf");
  EXPECT_EQ(pdf.substr(0, 5), "%PDF-");
  const size_t box = pdf.find("/MediaBox [ 0 0 ");
  ASSERT_NE(box, std::string::npos);
  double width = 0, height = 0;
  ASSERT_EQ(std::sscanf(pdf.c_str() + box, "/MediaBox [ 0 0 %lf %lf", &width, &height), 2);
  EXPECT_EQ(width * png_scale, layout.width);
  EXPECT_EQ(height * png_scale, layout.height);
  EXPECT_NE(pdf.find("/Subtype /Image"), std::string::npos);
  EXPECT_NE(pdf.find("/FlateDecode"), std::string::npos);
}

TEST(HeatMap, BordersBetweenLayers) {
  TemporaryFolder folder;
  HeatMap map{at::zeros({10, 10}), "two layers", {{"0.fc1", 0, 4}, {"0.fc2", 4, 10}}};
  const HeatMapLayout layout = heat_map_layout(map);
  const Picture picture = draw(map, folder);
  const int border = layout.x + 4 * layout.cell_width, inside = layout.y + layout.cell_height / 2;
  EXPECT_NE(picture.at(border, inside), viridis[0]);
  EXPECT_EQ(picture.at(border + 3, inside), viridis[0]);
  EXPECT_EQ(picture.at(border - 4, inside), viridis[0]);
  EXPECT_EQ(picture.at(layout.x + 2 * layout.cell_width, inside), viridis[0]) << "no line inside a layer";
}

// Every size and number of layers gives a page of sensible size whose margins stay white.
TEST(HeatMap, PagesOfManyShapes) {
  TemporaryFolder folder;
  const auto check = [&](const HeatMap& map) {
    const Picture picture = draw(map, folder);
    EXPECT_LT(picture.width, 3000);
    EXPECT_LT(picture.height, 3000);
    for (int x = 0; x < picture.width; ++x) {
      ASSERT_EQ(picture.at(x, 1), 0xffffffu);
      ASSERT_EQ(picture.at(x, picture.height - 2), 0xffffffu);
    }
    for (int y = 0; y < picture.height; ++y) {
      ASSERT_EQ(picture.at(1, y), 0xffffffu);
      ASSERT_EQ(picture.at(picture.width - 2, y), 0xffffffu);
    }
  };
  at::manual_seed(2);
  const std::string title = "a-model-with-a-long-name-Instruct, self_attn.q_proj, block 0, t = 32, b = 4, T = 256, ";
  for (const int64_t n : {1, 2, 5, 32, 768, 1201}) check({at::randn({n, n}), title + title});
  check({at::randn({1, 4000}), title});
  check({at::randn({4000, 1}), title});
  check({at::randn({300}), title});
  for (const int64_t blocks : {1, 30}) {
    HeatMap map{at::randn({14 * blocks, 14 * blocks}), title};
    for (int64_t i = 0; i < 7 * blocks; ++i) {
      const std::string label =
          std::to_string(i / 7) + ".a_very_long_name_of_a_layer.projection_" + std::to_string(i % 7);
      map.groups.push_back({label, 2 * i, 2 * i + 2});
    }
    check(map);
  }
}

TEST(HeatMap, RefusesBadInput) {
  TemporaryFolder folder;
  const auto refusal = [&](const HeatMap& map) {
    return error_of<std::invalid_argument>([&] { write_heat_map(map, folder / "h"); });
  };
  EXPECT_NE(refusal({at::zeros({2, 2, 2}), ""}).find("(2, 2, 2)"), std::string::npos);
  EXPECT_NE(refusal({at::zeros({0, 2}), ""}).find("(0, 2)"), std::string::npos);
  EXPECT_NE(refusal({at::Tensor(), ""}), "");
  EXPECT_NE(refusal({at::zeros({4, 4}), "", {{"a", 0, 2}, {"b", 3, 4}}}).find("'b' is [3, 4), expected to begin at 2"),
            std::string::npos);
  EXPECT_NE(refusal({at::zeros({4, 4}), "", {{"a", 0, 2}, {"b", 2, 3}}}).find("end at 3"), std::string::npos);
  EXPECT_NE(error_of<std::runtime_error>([] {
              write_heat_map({at::zeros({2, 2}), ""}, "/proc/h.png");
            }).find("cannot write /proc/h.png"),
            std::string::npos);
}

TEST(Text, LinesOfOneLength) {
  const std::string text = "Hessian of self_attn.q_proj of block 0, rows 0 to 3, b = 4, T = 256";
  const double whole = text_size(text, 12).width;
  EXPECT_EQ(wrap_text(text, 12, whole + 1), std::vector<std::string>{text});
  for (const double width : {0.97 * whole, 0.6 * whole, 0.4 * whole}) {  // 2, 2 and 3 lines
    std::string joined;
    double shortest = width, longest = 0;
    for (const std::string& line : wrap_text(text, 12, width)) {
      joined += (joined.empty() ? "" : " ") + line;
      shortest = std::min(shortest, text_size(line, 12).width);
      longest = std::max(longest, text_size(line, 12).width);
    }
    EXPECT_EQ(joined, text);
    EXPECT_LE(longest, width);
    EXPECT_GT(shortest, 0.5 * longest) << width;  // a line may lack one word of the next; not one word alone
  }
}

TEST(Ticks, RoundValuesAndLabels) {
  EXPECT_EQ(round_ticks(0, 10, 6).labels, (std::vector<std::string>{"0", "2", "4", "6", "8", "10"}));
  EXPECT_EQ(round_ticks(0, 1, 3).labels, (std::vector<std::string>{"0.0", "0.5", "1.0"}));
  const Ticks small = round_ticks(0, 3.2e-5, 4);
  EXPECT_EQ(small.exponent, -5);
  EXPECT_EQ(small.labels, (std::vector<std::string>{"0", "1", "2", "3"}));
  EXPECT_NEAR(small.values[3], 3e-5, 1e-18);
  for (const int most : {2, 5, 9}) {
    const Ticks ticks = round_ticks(1.0000001, 1.0000002, most);  // neighbouring labels differ
    EXPECT_LE(static_cast<int>(ticks.values.size()), most);
    for (size_t i = 1; i < ticks.labels.size(); ++i) EXPECT_NE(ticks.labels[i], ticks.labels[i - 1]);
  }
  EXPECT_EQ(log_ticks(1, 1000, 8).values, (std::vector<double>{1, 10, 100, 1000}));
  EXPECT_EQ(log_ticks(0.9, 12, 8).labels, (std::vector<std::string>{"1", "2", "5", "10"}));
  EXPECT_LE(log_ticks(1e-12, 1e12, 8).values.size(), 8u);
}

}  // namespace
}  // namespace hesper
