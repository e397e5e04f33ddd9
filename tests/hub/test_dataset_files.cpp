// Which files of a dataset are a split, and fetching them.
#include "hub/dataset_files.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "fake_hub.h"
#include "hub/fetch.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

using Files = std::vector<std::string>;

Files chosen(Files files, const DatasetRequest& request) {
  std::sort(files.begin(), files.end());
  return choose_dataset_files({"", files}, request, "org/name").files;
}

std::string refusal(const Files& files, const DatasetRequest& request) {
  return error_of<std::runtime_error>([&] { chosen(files, request); });
}

const Files wikitext = {"README.md",
                        "dataset_infos.json",
                        "wikitext-103-raw-v1/test-00000-of-00001.parquet",
                        "wikitext-103-raw-v1/train-00000-of-00002.parquet",
                        "wikitext-103-raw-v1/train-00001-of-00002.parquet",
                        "wikitext-2-raw-v1/test-00000-of-00001.parquet",
                        "wikitext-2-raw-v1/train-00000-of-00001.parquet"};

TEST(DatasetFiles, ConfigAndSplit) {
  EXPECT_EQ(chosen(wikitext, {"wikitext-2-raw-v1", "test"}), (Files{"wikitext-2-raw-v1/test-00000-of-00001.parquet"}));
  EXPECT_EQ(
      chosen(wikitext, {"wikitext-103-raw-v1", "train"}),
      (Files{"wikitext-103-raw-v1/train-00000-of-00002.parquet", "wikitext-103-raw-v1/train-00001-of-00002.parquet"}));
  EXPECT_EQ(refusal(wikitext, {"", "test"}),
            "org/name: split test lies in \"wikitext-103-raw-v1\", \"wikitext-2-raw-v1\": --config NAME chooses");
  EXPECT_EQ(refusal(wikitext, {"wikitext-2-raw-v1", "validation"}),
            "org/name: no files of split validation in config wikitext-2-raw-v1; there are \"test\", \"train\"");
  EXPECT_EQ(refusal({"README.md"}, {"", "test"}), "org/name: no files of texts (.parquet, .jsonl, .json.gz, .txt)");
}

TEST(DatasetFiles, OtherLayouts) {
  const Files c4 = {"en/c4-train.00000-of-01024.json.gz", "en/c4-validation.00000-of-00002.json.gz",
                    "en/c4-validation.00001-of-00002.json.gz", "en.noclean/c4-validation.00000-of-00001.json.gz"};
  EXPECT_EQ(chosen(c4, {"en", "validation"}), (Files{c4[1], c4[2]}));
  EXPECT_EQ(chosen(c4, {"", "test", c4[0]}), (Files{c4[0]}));
  EXPECT_EQ(refusal(c4, {"", "test", "en/none"}), "org/name: no file \"en/none\"");
  EXPECT_EQ(refusal(c4, {"en", "train"}), "org/name: split train has 1 of its 1024 files");
  EXPECT_EQ(chosen({"data/test-00000-of-00001.parquet", "raw/test.jsonl", "test.txt"}, {"", "test"}),
            (Files{"data/test-00000-of-00001.parquet"}));  // Parquet before the others
  EXPECT_EQ(chosen({"default/test/0000.parquet", "default/test/0001.parquet"}, {"", "test"}).size(), 2U);
  EXPECT_EQ(chosen({"testament.txt", "my-test.txt.gz"}, {"", "test"}), (Files{"my-test.txt.gz"}));
  EXPECT_EQ(refusal({"all.jsonl"}, {"", "test"}),
            "org/name: no files of split test: name one, --dataset ORG/NAME/FILE");
  Files many;
  for (int i = 0; i < 101; ++i) many.push_back(fmt::format("train-{:05}-of-00101.parquet", i));
  EXPECT_EQ(
      refusal(many, {"", "train"}),
      "org/name: split train has 101 files, more than 100: name one of them, org/name/train-00000-of-00101.parquet");
}

TEST(DatasetFiles, FetchedIntoTheCache) {
  test::FakeHub hub;
  test::FakeRepository& dataset = hub.repositories["datasets/org/name"];
  dataset.files = {{"data/test-00000-of-00002.parquet", "first"}, {"data/test-00001-of-00002.parquet", "second"}};
  const TemporaryFolder folder;
  HubSettings settings = hub.settings(folder.path);
  const HubSnapshot snapshot = fetch_dataset(settings, "org/name", {"", "test"}, {});
  EXPECT_EQ(snapshot.folder, folder / "datasets--org--name" / "snapshots" / std::string(40, 'a'));
  ASSERT_EQ(snapshot.files.size(), 2U);
  EXPECT_EQ(read_bytes(snapshot.folder / snapshot.files[1]), "second");
  EXPECT_EQ(std::filesystem::read_symlink(snapshot.folder / snapshot.files[1]),
            std::filesystem::path("../../../blobs") / test::git_sha1_of("second"));
  settings.offline = true;
  EXPECT_EQ(fetch_dataset(settings, "org/name", {"", "test"}, {}).files, snapshot.files);
  std::filesystem::remove(snapshot.folder / snapshot.files[0]);
  EXPECT_NE(error_of<std::runtime_error>([&] {
              fetch_dataset(settings, "org/name", {"", "test"}, {});
            }).find("split test has 1 of its 2 files"),
            std::string::npos);
}

}  // namespace
}  // namespace hesper
