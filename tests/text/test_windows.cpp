#include "text/windows.h"

#include <gtest/gtest.h>

#include "temporary_folder.h"
#include "text/npy.h"

namespace hesper {
namespace {

using Rows = std::vector<std::vector<int64_t>>;

Rows rows_of(const at::Tensor& tensor) {
  EXPECT_EQ(tensor.scalar_type(), at::kLong);
  Rows rows;
  for (int64_t i = 0; i < tensor.size(0); ++i) {
    const at::Tensor row = tensor[i].contiguous();
    rows.emplace_back(row.const_data_ptr<int64_t>(), row.const_data_ptr<int64_t>() + row.numel());
  }
  return rows;
}

std::vector<int32_t> counting(int32_t first, int32_t n) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < n; ++i) ids.push_back(first + i);
  return ids;
}

struct Cut {
  Windows windows;
  std::vector<std::string> notes;
};

Cut cut(const std::vector<int32_t>& ids, std::optional<int32_t> bos, const WindowOptions& options) {
  Cut result;
  result.windows = cut_windows(ids, bos, options, result.notes);
  return result;
}

std::string refusal(const std::vector<int32_t>& ids, std::optional<int32_t> bos, const WindowOptions& options) {
  return error_of<std::invalid_argument>([&] { cut(ids, bos, options); });
}

TEST(Windows, one_bos_before_the_document_and_the_remainder_dropped) {
  const auto [windows, notes] = cut(counting(10, 8), 2, {.seqlen = 4, .b = 2});
  EXPECT_EQ(rows_of(windows.ids), (Rows{{2, 10, 11, 12}, {13, 14, 15, 16}}));
  EXPECT_EQ(rows_of(windows.labels), (Rows{{-100, 10, 11, 12}, {-100, 14, 15, 16}}));
  EXPECT_EQ(windows.index, (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(windows.available, 2);
  EXPECT_TRUE(notes.empty());
}

TEST(Windows, a_bos_before_every_window_takes_the_place_of_one_token) {
  const auto [windows, notes] = cut(counting(10, 7), 2, {.seqlen = 4, .b = 2, .bos = BosPlacement::window});
  EXPECT_EQ(rows_of(windows.ids), (Rows{{2, 10, 11, 12}, {2, 13, 14, 15}}));
  EXPECT_EQ(rows_of(windows.labels), (Rows{{-100, 10, 11, 12}, {-100, 13, 14, 15}}));
  EXPECT_EQ(windows.available, 2);
}

TEST(Windows, no_bos) {
  EXPECT_EQ(rows_of(cut(counting(10, 8), 2, {.seqlen = 4, .b = 2, .bos = BosPlacement::none}).windows.ids),
            (Rows{{10, 11, 12, 13}, {14, 15, 16, 17}}));
  EXPECT_EQ(rows_of(cut(counting(10, 8), std::nullopt, {.seqlen = 4, .b = 1}).windows.ids), (Rows{{10, 11, 12, 13}}));
  EXPECT_EQ(refusal(counting(10, 8), std::nullopt, {.seqlen = 4, .bos = BosPlacement::window}),
            "--bos window: the tokenizer has no BOS");
}

TEST(Windows, loss_from_masks_the_positions_before_it) {
  const WindowOptions options{.seqlen = 4, .b = 1, .bos = BosPlacement::none, .loss_from = 3};
  EXPECT_EQ(rows_of(cut(counting(10, 4), {}, options).windows.labels), (Rows{{-100, -100, -100, 13}}));
  WindowOptions all = options;
  all.loss_from = 0;  // position 0 never counts
  EXPECT_EQ(rows_of(cut(counting(10, 4), {}, all).windows.labels), (Rows{{-100, 11, 12, 13}}));
  WindowOptions none = options;
  none.loss_from = 4;
  EXPECT_EQ(refusal(counting(10, 4), {}, none), "--loss-from 4: a window has only 4 positions");
  none.loss_from = -1;
  EXPECT_EQ(refusal(counting(10, 4), {}, none), "--loss-from -1: a position from 0 on expected");
}

TEST(Windows, a_range_of_windows) {
  const auto [windows, notes] = cut(counting(0, 20), {}, {.seqlen = 2, .windows = "3:5"});
  EXPECT_EQ(rows_of(windows.ids), (Rows{{6, 7}, {8, 9}}));
  EXPECT_EQ(windows.index, (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(windows.available, 10);
  EXPECT_TRUE(notes.empty());
  const auto error = [](const std::string& range, std::optional<int64_t> b = {}) {
    return refusal(counting(0, 20), {}, {.seqlen = 2, .b = b, .windows = range});
  };
  EXPECT_EQ(error("8:11"), "--windows 8:11: only 10 windows are there");
  EXPECT_EQ(error("5:5"), "--windows 5:5: the range is empty");
  EXPECT_EQ(error("0:4", 3), "--b 3 beside --windows 0:4, which are 4 windows");
  for (const char* bad : {"", "5", "a:b", "1:", ":2", "-1:2", "1:2:3", "1:99999999999999999999", "last"}) {
    EXPECT_EQ(error(bad), std::string("--windows ") + bad + ": first, random or A:B expected");
  }
}

TEST(Windows, random_windows_are_distinct_sorted_and_fixed_by_the_seed) {
  const std::vector<int64_t> chosen = random_subset(1000, 30, 7);
  EXPECT_EQ(chosen, random_subset(1000, 30, 7));
  EXPECT_NE(chosen, random_subset(1000, 30, 8));
  ASSERT_EQ(chosen.size(), 30u);
  for (size_t i = 1; i < chosen.size(); ++i) EXPECT_LT(chosen[i - 1], chosen[i]);
  EXPECT_GE(chosen.front(), 0);
  EXPECT_LT(chosen.back(), 1000);
  EXPECT_EQ(random_subset(5, 5, 0), (std::vector<int64_t>{0, 1, 2, 3, 4}));
  EXPECT_TRUE(random_subset(5, 0, 0).empty());

  const auto [windows, notes] = cut(counting(0, 20), {}, {.seqlen = 2, .b = 3, .windows = "random", .seed = 1});
  EXPECT_EQ(windows.index, random_subset(10, 3, 1));
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(rows_of(windows.ids)[i][0], 2 * windows.index[i]);
}

// Every subset equally often: 2 of 4 has 6 subsets, 6,000 draws; 5 sigma of a count is 5 sqrt(6000 * 5/36) = 144.
TEST(Windows, random_subsets_are_uniform) {
  std::map<std::vector<int64_t>, int> counts;
  for (uint64_t seed = 0; seed < 6000; ++seed) ++counts[random_subset(4, 2, seed)];
  EXPECT_EQ(counts.size(), 6u);
  for (const auto& [subset, count] : counts) EXPECT_NEAR(count, 1000, 144);
}

TEST(Windows, defaults_are_lowered_with_a_note_and_flags_are_not) {
  const auto [windows, notes] = cut(counting(0, 4095), 4095, {.max_seqlen = 512});
  EXPECT_EQ(windows.ids.sizes(), (std::vector<int64_t>{8, 512}));
  EXPECT_EQ(notes, (std::vector<std::string>{"seqlen lowered from 2048 to 512, the model's positions",
                                             "b lowered from 30 to the 8 windows that are there"}));
  const Cut small = cut(counting(0, 9), 9, {});
  EXPECT_EQ(small.windows.ids.sizes(), (std::vector<int64_t>{1, 10}));
  EXPECT_EQ(small.notes[0], "seqlen lowered from 2048 to 10, all that the text has");

  EXPECT_EQ(refusal(counting(0, 4095), 0, {.seqlen = 2048, .max_seqlen = 512}),
            "seqlen 2048: the model has only 512 positions");
  EXPECT_EQ(refusal(counting(0, 99), 0, {.seqlen = 101}), "seqlen 101: the text has only 100 tokens");
  EXPECT_EQ(refusal(counting(0, 99), 0, {.seqlen = 10, .b = 11}), "--b 11: only 10 windows are there");
  EXPECT_EQ(refusal(counting(0, 99), 0, {.seqlen = 10, .b = 0}), "--b 0: at least 1 window is needed");
  EXPECT_EQ(refusal(counting(0, 99), 0, {.seqlen = 1}), "seqlen 1: a window needs at least 2 tokens");
  EXPECT_EQ(refusal(counting(0, 99), 0, {.seqlen = -4}), "seqlen -4: a window needs at least 2 tokens");
  EXPECT_EQ(refusal({}, {}, {}), "the text has no tokens");
  EXPECT_EQ(refusal({7}, {}, {}), "seqlen 1: a window needs at least 2 tokens");
}

TEST(Windows, the_largest_explicit_seqlen_fits) {
  EXPECT_EQ(rows_of(cut(counting(0, 3), 9, {.seqlen = 4, .b = 1}).windows.ids), (Rows{{9, 0, 1, 2}}));
  EXPECT_EQ(rows_of(cut(counting(0, 3), 9, {.seqlen = 4, .b = 1, .bos = BosPlacement::window}).windows.ids),
            (Rows{{9, 0, 1, 2}}));
}

TEST(WindowFiles, a_stream_is_cut_and_taken_as_it_is) {
  const TemporaryFolder folder;
  write_npy(folder / "ids.npy", at::arange(7, at::kInt));
  std::vector<std::string> notes;
  const auto read = [&](const WindowOptions& options) {
    return windows_from_files(folder / "ids.npy", std::nullopt, 50, options, notes);
  };
  EXPECT_EQ(rows_of(read({.seqlen = 3, .b = 2}).ids), (Rows{{0, 1, 2}, {3, 4, 5}}));
  EXPECT_EQ(rows_of(read({.seqlen = 4, .b = 2, .bos = BosPlacement::document}).ids),
            (Rows{{50, 0, 1, 2}, {3, 4, 5, 6}}));
  EXPECT_EQ(error_of<std::invalid_argument>(
                [&] { windows_from_files(folder / "ids.npy", folder / "ids.npy", {}, {.seqlen = 3}, notes); }),
            (folder / "ids.npy").string() + ": labels need 2-D windows, but the ids are one stream");
}

TEST(WindowFiles, windows_with_labels) {
  const TemporaryFolder folder;
  const auto ids = folder / "ids.npy", labels = folder / "labels.npy";
  write_npy(ids, at::arange(12, at::kLong).view({3, 4}));
  write_npy(labels, at::tensor({0, 1, -100, 3, -100, -100, -100, 7, 8, -100, 20, -100}, at::kInt).view({3, 4}));
  std::vector<std::string> notes;
  const Windows windows = windows_from_files(ids, labels, 50, {}, notes);
  EXPECT_EQ(rows_of(windows.ids), (Rows{{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}}));
  EXPECT_EQ(rows_of(windows.labels), (Rows{{-100, 1, -100, 3}, {-100, -100, -100, 7}, {-100, -100, 20, -100}}));
  EXPECT_EQ(notes, (std::vector<std::string>{"b lowered from 30 to the 3 windows that are there"}));
  EXPECT_EQ(rows_of(windows_from_files(ids, {}, {}, {.windows = "1:2"}, notes).labels), (Rows{{-100, 5, 6, 7}}));

  const auto error = [&](const std::optional<std::filesystem::path>& file, const WindowOptions& options) {
    return error_of<std::invalid_argument>([&] { windows_from_files(ids, file, 50, options, notes); });
  };
  EXPECT_EQ(error(labels, {.loss_from = 3}), ids.string() + ": window 2 has no position that counts");
  EXPECT_EQ(error({}, {.seqlen = 5}), "--seqlen 5: the windows of " + ids.string() + " have 4 tokens");
  EXPECT_EQ(error({}, {.max_seqlen = 3}), "seqlen 4: the model has only 3 positions");
  EXPECT_EQ(error({}, {.bos = BosPlacement::window}),
            ids.string() + ": windows made elsewhere are taken as they are: --bos none");
  write_npy(labels, at::zeros({2, 4}, at::kInt));
  EXPECT_EQ(error(labels, {}), labels.string() + ": labels are 2 x 4, but the ids are 3 x 4");
  write_npy(ids, at::zeros({3, 4}, at::kFloat));
  EXPECT_EQ(error({}, {}), ids.string() + ": ids are int32 or int64, but this is Float");
  write_npy(ids, at::zeros({3, 4, 5}, at::kInt));
  EXPECT_EQ(error({}, {}), ids.string() + ": a 1-D stream or 2-D windows expected, but this is 3 x 4 x 5");
  write_npy(ids, at::zeros({0, 4}, at::kInt));
  EXPECT_EQ(error({}, {}), ids.string() + ": no windows");
}

TEST(Windows, ids_and_labels_lie_in_the_vocabulary) {
  Windows windows = cut(counting(0, 20), {}, {.seqlen = 4, .windows = "2:4"}).windows;  // ids 8..15
  EXPECT_NO_THROW(check_vocabulary(windows, 16));
  const auto error = [&](int64_t size) {
    return error_of<std::invalid_argument>([&] { check_vocabulary(windows, size); });
  };
  EXPECT_EQ(error(14), "token id 14 at position 2 of window 3 is outside the model's vocabulary of 14");
  windows.labels[1][1] = -99;
  EXPECT_EQ(error(16), "label -99 at position 1 of window 3 is outside the model's vocabulary of 16");
  windows.ids[0][0] = -100;
  EXPECT_EQ(error(16), "token id -100 at position 0 of window 2 is outside the model's vocabulary of 16");
}

TEST(Windows, digest_of_the_ids) {
  // printf '\x01\0\0\0\x02\x01\0\0' | sha256sum
  EXPECT_EQ(ids_sha256(std::vector<int32_t>{1, 258}),
            "fb8bbe2ad3ab5292f19bc5d75bbab9b5fbddc5a78ce47ab41b2d3d59bca08596");
  EXPECT_EQ(ids_sha256(at::tensor({1, 258}, at::kLong).view({2, 1})), ids_sha256(std::vector<int32_t>{1, 258}));
}

TEST(Windows, names_of_bos_placements) {
  EXPECT_EQ(parse_bos_placement("document"), BosPlacement::document);
  EXPECT_EQ(parse_bos_placement("window"), BosPlacement::window);
  EXPECT_EQ(parse_bos_placement("none"), BosPlacement::none);
  EXPECT_THROW(parse_bos_placement("Document"), std::invalid_argument);
}

}  // namespace
}  // namespace hesper
