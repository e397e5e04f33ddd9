// hesper ... --parts i/N and hesper merge, as a user runs them.
#include "results.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;

class MergeTool : public Results {
 protected:
  Outcome run(const Words& words) const { return run_tool(folder.path, words); }
  /// The whole run, its three parts and their merge: the same files, numbers equal to rounding, nothing else left.
  void expect_joined(const Words& command) const {
    ASSERT_EQ(run(command + data("whole")).code, 0);
    Words merge = {"merge"};
    for (const char* part : {"3/3", "1/3", "2/3"}) {
      const Outcome outcome = run(command + data("parts") + Words{"--parts", part});
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      EXPECT_NE(outcome.out.find("hesper merge joins"), std::string::npos) << outcome.out;
    }
    for (const std::string& file : files("parts", ".part")) merge.push_back("parts/" + file);
    ASSERT_EQ(merge.size(), 4u);
    EXPECT_TRUE(files("parts", ".json").empty());
    const Outcome outcome = run(merge + Words{"--out", "merged"});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    expect_same("whole", "merged");
    for (const char* done : {"whole", "parts", "merged"}) fs::remove_all(folder / done);
  }
};

TEST_F(MergeTool, JoinsWhatThePartsHave) {
  expect_joined({"exact", "--t", "6", "--curvature", "all", "--errors", "full"});
  expect_joined({"diag", "--layer", "q_proj,v_proj", "--probes", "6", "--errors", "full"});
  expect_joined({"fisher", "--kind", "input-gram", "--layer", "q_proj"});
}

TEST_F(MergeTool, Refuses) {
  const Words command = {"diag", "--layer", "v_proj", "--probes", "4"};
  const auto part = [&](const std::string& number, const std::string& out, const Words& more = {}) {
    const Outcome outcome = run(command + data(out) + more + Words{"--parts", number});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    for (const std::string& file : files(out, ".part"))
      if (file.find(number.substr(0, 1) + "of") != std::string::npos) return fmt::format("{}/{}", out, file);
    return std::string();
  };
  const std::string one = part("1/2", "a"), two = part("2/2", "a"), third = part("3/3", "a");
  const std::string foreign = part("2/2", "b", {"--seed", "3"});
  expect_refusal(run({"merge", one, "--out", "m"}), 2, "windows 2 to 4 missing");
  expect_refusal(run({"merge", one, two, third, "--out", "m"}), 2, "both hold windows");
  expect_refusal(run({"merge", one, foreign, "--out", "m"}), 2, "seed 0, now 3");
  expect_refusal(run({"merge", "ids.npy", "--out", "m"}), 1, "ids.npy");
  EXPECT_FALSE(fs::exists(folder / "m"));
  expect_refusal(run(command + data("a") + Words{"--parts", "6/6"}), 2, "there are only 5 windows to share");
  expect_refusal(run(command + data("a") + Words{"--parts", "0/2"}), 2, "--parts 0/2: i/N expected");
  expect_refusal(
      run(Words{"diag", "--layer", "v_proj", "--method", "krylov", "--probes", "40", "--parts", "1/2"} + data("a")), 2,
      "--parts 1/2: --method krylov");
}

}  // namespace
}  // namespace hesper
