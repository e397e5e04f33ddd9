// hesper sweep end to end, on golden models.
#include <sstream>

#include "cli/tool.h"
#include "oracle/golden.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;

class SweepTool : public testing::Test {
 protected:
  void SetUp() override { write_npy(folder / "ids.npy", golden.ids); }
  Outcome sweep(const Words& more) {
    return run_tool(folder.path, Words{"sweep", "--model", golden.folder, "--token-ids", "ids.npy"} + more);
  }
  nlohmann::json json(const std::string& file) { return nlohmann::json::parse(read_bytes(folder / file)); }
  std::vector<std::string> lines(const std::string& file) {
    std::istringstream stream(read_bytes(folder / file));
    std::vector<std::string> out;
    for (std::string line; std::getline(stream, line);) out.push_back(line);
    return out;
  }
  void expect_pictures(const std::string& base) {
    EXPECT_TRUE(read_bytes(folder / (base + ".png")).starts_with("\x89PNG"));
    EXPECT_TRUE(read_bytes(folder / (base + ".pdf")).starts_with("%PDF"));
  }

  const oracle::Golden golden = oracle::read_golden("opt-pre");  // 3 windows of 10 tokens
  const TemporaryFolder folder;
};

TEST_F(SweepTool, BlockOverWindows) {
  const Outcome outcome = sweep({"--t", "8", "--precision", "fp64"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  const std::string base = "data/opt-pre/sweep_b_hessian_self_attn.q_proj_block0_t8_b3_seed0_T10";
  expect_pictures(base);
  const auto csv = lines(base + ".csv");
  ASSERT_EQ(csv.size(), 4u);
  EXPECT_EQ(csv[0],
            "b,distance,expected_distance,disjoint_sets,disjoint_sets_standard_error,window_error,"
            "window_error_standard_error");
  EXPECT_TRUE(csv[1].starts_with("1,"));
  EXPECT_TRUE(csv[3].starts_with("3,"));
  const auto record = json(base + ".json");
  EXPECT_EQ(record["points"], nlohmann::json::array({1, 2, 3}));
  EXPECT_EQ(record["command_line"][1], "sweep");
  EXPECT_EQ(record["configuration"]["of"], "exact");
  EXPECT_EQ(record["products"], 24);
  EXPECT_TRUE(record["columns"]["disjoint_sets"][2].is_null());
  EXPECT_GT(record["columns"]["distance"][0].get<double>(), 0);
  // The golden Hessian of all three windows is what it is relative to.
  EXPECT_NEAR(record["norm"].get<double>(), golden.selections[0].hessian.norm().item<double>(), 1e-12);
}

TEST_F(SweepTool, DiagonalOverProbesAndWindows) {
  const Outcome outcome = sweep({"--over", "probes", "--vhp_samples", "5", "--truth", "0:2", "--out", "o", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const std::string base = last_event(outcome, "result")["file"];
  EXPECT_EQ(base, "o/diag_hessian/sweep_probes_hessian_diag_self_attn.q_proj_block0_vhp_samples5_b3_seed0_T10");
  expect_pictures(base);
  EXPECT_EQ(lines(base + ".csv")[0], "probes,true_error,probe_error,inverse_root");
  EXPECT_EQ(json(base + ".json")["notes"]["truth"]["entries"], 32);
  ASSERT_EQ(sweep({"--for", "diag", "--probes", "5", "--method", "split", "--out", "o"}).code, 0);
  expect_pictures("o/diag_hessian/sweep_b_hessian_diag_self_attn.q_proj_block0_vhp_samples5_split_b3_seed0_T10");
  ASSERT_EQ(sweep({"--for", "diag", "--exact", "--rows", "0:1", "--out", "e", "--quiet"}).code, 0);
  // Another truth is another result.
  expect_refusal(sweep({"--over", "probes", "--probes", "5", "--truth", "0:3", "--out", "o"}), 2,
                 "another truth_sha256");
  EXPECT_EQ(sweep({"--over", "probes", "--probes", "5", "--truth", "0:3", "--out", "o", "--overwrite"}).code, 0);
}

TEST_F(SweepTool, BadInput) {
  expect_refusal(sweep({"--b", "1"}), 2, "--b 1: a sweep needs at least 2 windows");
  expect_refusal(sweep({"--over", "t"}), 2, "--over");
  expect_refusal(sweep({"--over", "probes", "--probes", "1"}), 2, "--probes 1: a sweep needs at least 2 probes");
  expect_refusal(sweep({"--for", "exact", "--over", "probes"}), 2, "--over probes: an exact block has none");
  expect_refusal(sweep({"--probes", "4"}), 2, "--probes: of diagonals; --for diag is missing");
  expect_refusal(sweep({"--truth", "all"}), 2, "--truth: of diagonals");
  expect_refusal(sweep({"--for", "diag", "--truth", "0:1"}), 2, "--truth 0:1: of --over probes");
  expect_refusal(sweep({"--for", "diag", "--exact", "--probes", "3"}), 2, "--probes: --exact takes no probes");
  expect_refusal(sweep({"--over", "probes", "--exact"}), 2, "--exact: takes no probes");
  expect_refusal(sweep({"--over", "probes", "--truth", "0:17"}), 2, "has only 16 rows");
  expect_refusal(sweep({"--over", "probes", "--truth", "row"}), 2, "--truth row: a range A:B expected");
  expect_refusal(sweep({"--over", "probes", "--rows", "0:1", "--truth", "0:1"}), 2, "--truth all");
  expect_refusal(sweep({"--for", "diag", "--layer", "q_proj,fc1"}), 2, "one layer, 2 are selected");
  expect_refusal(sweep({"--for", "diag", "--method", "split", "--curvature", "residual"}), 2, "--method split");
  expect_refusal(sweep({"--memory-limit", "1KiB"}), 1, "memory");
  expect_refusal(sweep({"--curvature", "all"}), 2, "--curvature");
  EXPECT_FALSE(fs::exists(folder / "data"));
}

TEST_F(SweepTool, InterruptedLeavesASnapshotAlone) {
  const std::string script =
      "rm -f .out; \"$@\" >.out 2>.err & tool=$!; for i in $(seq 600); do grep -q two-pass .out && break; sleep 0.1; "
      "done; "
      "kill -INT $tool; wait $tool";
  const Outcome outcome = run_tool(folder.path,
                                   {"sweep", "--model", golden.folder, "--token-ids", "ids.npy", "--over", "probes",
                                    "--probes", "1000000", "--directions", "1", "--out", "o"},
                                   fmt::format("sh -c {} sh", quoted(script)));
  expect_refusal(outcome, 130, "interrupted, snapshot saved: o/");
  for (const auto& entry : fs::recursive_directory_iterator(folder / "o"))
    EXPECT_TRUE(entry.is_directory() || entry.path().extension() == ".snapshot") << entry.path();
}

}  // namespace
}  // namespace hesper
