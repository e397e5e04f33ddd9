// hesper plan --for diag: the forecast that the run itself makes, nothing computed.
#include "cli/tool.h"
#include "oracle/golden.h"

namespace hesper {
namespace {

class PlanTool : public testing::Test {
 protected:
  void SetUp() override { write_npy(folder / "ids.npy", golden.ids); }
  Outcome tool(const std::string& command, const Words& more) {
    return run_tool(folder.path, Words{command, "--model", golden.folder, "--token-ids", "ids.npy"} + more);
  }

  const oracle::Golden golden = oracle::read_golden("opt-pre");
  const TemporaryFolder folder;
};

TEST_F(PlanTool, OfADiagonalIsTheRunsOwn) {
  for (const Words& estimate :
       {Words{"--probes", "5"}, Words{"--method", "split", "--probes", "20"}, Words{"--exact", "--rows", "0:2"},
        Words{"--layer", "all", "--probe-scope", "joint", "--probes", "4"}, Words{"--rel-error", "0.9"}}) {
    const Words flags = estimate + Words{"--memory-limit", "4GiB", "--json"};
    const auto plan = last_event(tool("plan", Words{"--for", "diag"} + flags), "plan"),
               run = last_event(tool("diag", flags), "plan");
    ASSERT_FALSE(run.is_null());
    EXPECT_EQ(plan["n"], run["n"]);
    EXPECT_EQ(plan["directions"], run["directions"]);
    EXPECT_EQ(plan["units"], run["units"]);
    EXPECT_EQ(std::max(plan["memory"]["total"].get<int64_t>(), plan["memory"]["check"].get<int64_t>()), run["memory"]);
    EXPECT_GT(plan["tangent_flops"].get<double>(), 0);
  }
  const Outcome text = tool("plan", {"--for", "diag", "--probes", "5"});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_NE(text.out.find("n = 256"), std::string::npos) << text.out;  // the whole layer, as diag takes it
  EXPECT_NE(text.out.find("5 probes of each window, by hutchinson"), std::string::npos) << text.out;
}

// The rank with most windows ends last.
TEST_F(PlanTool, OfRanks) {
  const int64_t b = golden.ids.size(0);
  const auto plan = last_event(tool("plan", {"--for", "diag", "--probes", "5", "--ranks", "2", "--json"}), "plan");
  EXPECT_EQ(plan["ranks"], 2);
  EXPECT_DOUBLE_EQ(plan["share_of_a_rank"].get<double>(), static_cast<double>((b + 1) / 2) / static_cast<double>(b));
  expect_refusal(tool("plan", {"--for", "diag", "--ranks", "50"}), 2, "--ranks 50: there are only");
  EXPECT_EQ(
      last_event(tool("plan", {"--for", "diag", "--method", "krylov", "--ranks", "2", "--json"}), "plan")["ranks"], 2);
}

// Of GPUs that are elsewhere: what it takes there, and no time but a given one.
TEST_F(PlanTool, OfAbsentGpus) {
  const Words there{"--device", "cuda:100", "--precision", "bf16x3"}, room{"--memory-limit", "80GiB"};
  expect_refusal(tool("plan", there), 2, "--device cuda:100: not on this machine, so its plan needs --memory-limit");
  expect_refusal(tool("plan", there + room + Words{"--pilot"}), 2, "--pilot: --device cuda:100 is not on this machine");
  expect_refusal(tool("exact", there + room), 2, "--device cuda:100");
  const auto plan = last_event(tool("plan", there + room + Words{"--json"}), "plan");
  EXPECT_GT(plan["memory"]["total"].get<int64_t>(), int64_t{256} << 20);  // a GPU's library
  EXPECT_EQ(plan["memory_limit"], int64_t{80} << 30);
  EXPECT_TRUE(plan["seconds"].is_null());
  const Words timed{"--json", "--time-per-product", "0.5", "--for", "diag", "--probes", "6"};
  EXPECT_EQ(last_event(tool("plan", there + room + timed), "plan")["seconds"].get<double>(),
            3 * static_cast<double>(golden.ids.size(0)));
  const Outcome two = tool("plan", Words{"--device", "cuda:100,cuda:101", "--precision", "bf16x3"} + room);
  EXPECT_NE(two.out.find("cuda:101"), std::string::npos) << two.out << two.err;
  EXPECT_NE(two.out.find("unknown: the GPU is not here"), std::string::npos) << two.out;
}

// A config.json alone plans what the model itself does.
TEST_F(PlanTool, OfAShape) {
  std::filesystem::create_directory(folder / "shape");
  std::filesystem::copy_file(golden.folder + "/config.json", folder / "shape" / "config.json");
  for (const Words& of : {Words{"--t", "4"}, Words{"--for", "diag", "--probes", "5", "--rows", "0:2"}}) {
    const Words words = of + Words{"--memory-limit", "4GiB", "--time-per-product", "0.5", "--ranks", "2", "--json"};
    auto model = last_event(tool("plan", words), "plan");
    const Outcome outcome = run_tool(folder.path, Words{"plan", "--model", "shape", "--token-ids", "ids.npy"} + words);
    auto shape = last_event(outcome, "plan");
    EXPECT_EQ(shape, model) << outcome.err;
    const double products = (of[0] == "--t" ? 4 : 5) * static_cast<double>(golden.ids.size(0));
    EXPECT_EQ(shape["products"], products);
    EXPECT_DOUBLE_EQ(shape["seconds"].get<double>(), 0.5 * products);
    EXPECT_EQ(shape["seconds_from"], "given");
  }
  expect_refusal(run_tool(folder.path, {"plan", "--model", "shape", "--b", "1", "--seqlen", "8", "--pilot"}), 2,
                 "no weights to measure with");
  expect_refusal(run_tool(folder.path, {"exact", "--model", "shape", "--token-ids", "ids.npy"}), 1, "no weights");
}

// Measured, not computed from a rate: both parts take time, and the run is made of them.
TEST_F(PlanTool, ByAPilot) {
  for (const Words& of :
       {Words{"--t", "4", "--pass", "two-pass"}, Words{"--t", "4"}, Words{"--for", "diag", "--probes", "5"}}) {
    const auto plan = last_event(tool("plan", of + Words{"--pilot", "--json"}), "plan");
    EXPECT_GT(plan["seconds"].get<double>(), 0);
    EXPECT_EQ(plan["seconds_from"], "pilot");
  }
  expect_refusal(tool("plan", {"--pilot", "--time-per-product", "1"}), 2, "--pilot");
}

TEST_F(PlanTool, ContradictingFlags) {
  expect_refusal(tool("plan", {"--probes", "5"}), 2, "--probes: of diagonals, but --for is exact");
  expect_refusal(tool("plan", {"--exact"}), 2, "--exact: of diagonals");
  expect_refusal(tool("plan", {"--for", "diag", "--pass", "gram"}), 2,
                 "--pass gram: of exact blocks, but --for is diag");
  expect_refusal(tool("plan", {"--for", "diag", "--curvature", "all"}), 2, "--curvature all");
  expect_refusal(tool("plan", {"--for", "diag", "--exact", "--probes", "3"}), 2, "--exact takes no probes");
  expect_refusal(tool("plan", {"--for", "fisher"}), 2, "--for");
}

}  // namespace
}  // namespace hesper
