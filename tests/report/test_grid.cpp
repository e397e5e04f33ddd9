#include "report/grid.h"

#include <gtest/gtest.h>

#include <cmath>

#include "temporary_folder.h"

namespace hesper {
namespace {

Grid small_grid(size_t panels) {
  Grid grid{"Title", "Block", "Layer", {"0", "1"}, {"q", "k", "v"}, {}};
  for (size_t i = 0; i < panels; ++i)
    grid.panels.push_back({"Panel", {0, 1, 2, 3, NAN, 5}, {"0", "1", "2", "3", "?", "5"}});
  return grid;
}

TEST(Grid, WritesBothFiles) {
  const TemporaryFolder folder;
  for (const size_t panels : {1, 3, 5}) {
    const auto base = folder / ("grid" + std::to_string(panels));
    write_grid(small_grid(panels), base);
    EXPECT_TRUE(read_bytes(base.string() + ".png").starts_with("\x89PNG"));
    EXPECT_TRUE(read_bytes(base.string() + ".pdf").starts_with("%PDF"));
  }
}

TEST(Grid, RefusesWhatDoesNotFit) {
  const TemporaryFolder folder;
  EXPECT_THROW(write_grid(small_grid(0), folder / "g"), std::invalid_argument);
  Grid wrong = small_grid(1);
  wrong.panels[0].texts.pop_back();
  EXPECT_THROW(write_grid(wrong, folder / "g"), std::invalid_argument);
}

}  // namespace
}  // namespace hesper
