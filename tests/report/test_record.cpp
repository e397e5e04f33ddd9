#include "report/record.h"

#include <gtest/gtest.h>

#include <cmath>

#include "temporary_folder.h"

namespace hesper {
namespace {

using nlohmann::json;

TEST(Record, EveryFieldIsWritten) {
  TemporaryFolder folder;
  RunRecord record;
  record.version = "0.1.0";
  record.command_line = {"hesper", "exact", "--t", "5", "caf\xe9"};  // not UTF-8
  record.model = {"opt-125m", std::nullopt, std::nullopt, "ab12"};
  record.data = {"wikitext2", "org/name", "ef56", "cd34", 30, 2048};
  record.selection = {{"model.layers.0.fc1.weight", {4, 8}, {0, 1, 2, 3, 4, 16, 17, 18}}, {"x", {9}, {5, 3, 8}}};
  record.configuration = {{"objective", "cross-entropy"}};
  record.loss = 3.25;
  record.perplexity = NAN;
  record.products = 120;
  record.seconds = 1.5;
  record.device = "cpu";
  record.precision = "fp32";
  record.peak_memory = int64_t{5} << 30;
  record.errors = {.symmetry = 1e-7, .precision = INFINITY, .probe = std::nullopt, .data = 0.2};
  record.spectrum = Spectrum{.n = 3, .largest = 2, .smallest = -1};
  write_record(folder / "r.json", record);

  const json j = json::parse(read_bytes(folder / "r.json"));
  EXPECT_EQ(j["version"], "0.1.0");
  EXPECT_EQ(j["command_line"][3], "5");
  EXPECT_EQ(j["command_line"][4], "caf\xef\xbf\xbd");
  EXPECT_EQ(j["model"], (json{{"name", "opt-125m"}, {"hub_id", nullptr}, {"revision", nullptr}, {"sha256", "ab12"}}));
  EXPECT_EQ(j["data"], (json{{"name", "wikitext2"},
                             {"hub_id", "org/name"},
                             {"revision", "ef56"},
                             {"sha256", "cd34"},
                             {"windows", 30},
                             {"seqlen", 2048}}));
  EXPECT_EQ(j["selection"][0]["ranges"], (json{{0, 5}, {16, 19}}));
  EXPECT_EQ(j["selection"][0]["shape"], (json{4, 8}));
  EXPECT_EQ(j["selection"][0]["count"], 8);
  EXPECT_EQ(j["selection"][1]["indices"], (json{5, 3, 8}));
  EXPECT_EQ(j["configuration"]["objective"], "cross-entropy");
  EXPECT_EQ(j["loss"], 3.25);
  EXPECT_TRUE(j["perplexity"].is_null());
  EXPECT_TRUE(j["gradient_norm"].is_null());
  EXPECT_EQ(j["products"], 120);
  EXPECT_EQ(j["peak_memory"], 5368709120);
  EXPECT_EQ(j["errors"], (json{{"symmetry", 1e-7}, {"precision", nullptr}, {"probe", nullptr}, {"data", 0.2}}));
  EXPECT_EQ(j["spectrum"]["smallest_eigenvalue"], -1);
  EXPECT_TRUE(to_json(RunRecord{})["spectrum"].is_null());
}

TEST(Record, UnwritableOutput) {
  EXPECT_NE(error_of<std::runtime_error>([] { write_record("/proc/r.json", {}); }).find("cannot write /proc/r.json"),
            std::string::npos);
}

}  // namespace
}  // namespace hesper
