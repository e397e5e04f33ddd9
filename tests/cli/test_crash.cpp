// Runs that are killed, interrupted or hit by a failing disk, and then started again: the result is bit for bit that of
// a run which nothing happened to.

#include <chrono>
#include <random>
#include <thread>

#include "tool.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// A run of 40 steps and a snapshot after each.
const Words kRun = {"exact",
                    "--model",
                    golden_folder("llama-gqa"),
                    "--token-ids",
                    "ids.npy",
                    "--bos",
                    "none",
                    "--seqlen",
                    "12",
                    "--b",
                    "5",
                    "--t",
                    "8",
                    "--pass",
                    "two-pass",
                    "--directions",
                    "1",
                    "--errors",
                    "full",
                    "--curvature",
                    "all",
                    "--quiet",
                    "--snapshot-every",
                    "0"};

class Crash : public testing::Test {
 protected:
  Crash() {
    at::manual_seed(1);
    write_npy(folder / "ids.npy", at::randint(4, 40, {60}, at::kInt));
    const Clock::time_point begin = Clock::now();
    EXPECT_EQ(run_tool(folder.path, kRun + Words{"--out", "whole"}).code, 0);
    seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    for (const auto& entry : fs::directory_iterator(folder / "whole"))
      if (entry.path().extension() == ".pt" || entry.path().extension() == ".safetensors")
        files.push_back(entry.path().filename());
    EXPECT_EQ(files.size(), 6u);  // three matrices and what is beside them
  }
  /// Starts a run and kills it after `delay`; true where it had ended by then.
  bool run_and_kill(const std::string& out, std::chrono::microseconds delay, int signal) const {
    const pid_t process = start_tool(folder.path, kRun + Words{"--out", out}, "/dev/null", "/dev/null");
    std::this_thread::sleep_for(delay);
    ::kill(process, signal);
    int status = 0;
    ::waitpid(process, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  void expect_whole(const std::string& out) const {
    for (const fs::path& file : files)
      EXPECT_EQ(read_bytes(folder / out / file), read_bytes(folder / "whole" / file)) << out << " " << file;
    for (const auto& entry : fs::directory_iterator(folder / out)) {
      const std::string name = entry.path().filename().string();
      EXPECT_TRUE(name.find(".snapshot") == std::string::npos) << name;
    }
  }
  const TemporaryFolder folder;
  std::vector<fs::path> files;
  double seconds = 0;  // of a whole run
};

/// 20 kills; 200 with HESPER_LONG_TESTS.
TEST_F(Crash, KilledAtRandomInstants) {
  const int kills = std::getenv("HESPER_LONG_TESTS") ? 200 : 20;
  std::mt19937 random(7);
  std::uniform_real_distribution<double> instant(0.3 * seconds, seconds);
  int runs = 0, resumed = 0;
  for (int killed = 0; killed < kills; ++runs) {
    const std::string out = fmt::format("killed{}", runs);
    for (bool ended = false; !ended;) {
      if (killed < kills) {
        ended = run_and_kill(out, std::chrono::microseconds(static_cast<int64_t>(1e6 * instant(random))), SIGKILL);
        killed += ended ? 0 : 1;
        continue;
      }
      const Outcome last = run_tool(folder.path, kRun + Words{"--out", out});
      ASSERT_EQ(last.code, 0) << last.err;
      resumed += last.out.find("going on") != std::string::npos ? 1 : 0;
      ended = true;
    }
    expect_whole(out);
  }
  RecordProperty("runs", runs);
}

// A signal saves and says so; --resume goes on; without a snapshot it refuses.
TEST_F(Crash, InterruptedAndResumed) {
  const Words run = kRun + Words{"--out", "stopped"};
  expect_refusal(run_tool(folder.path, run + Words{"--resume"}), 2, "there is no snapshot");
  const auto saved = [&] {
    const fs::path stopped = folder / "stopped";
    return fs::exists(stopped) &&
           std::any_of(fs::directory_iterator(stopped), fs::directory_iterator(),
                       [](const auto& entry) { return entry.path().extension() == ".snapshot"; });
  };
  for (double delay = 1.5 * seconds; !saved() && delay > 0.05 * seconds; delay *= 0.9) {
    fs::remove_all(folder / "stopped");
    run_and_kill("stopped", std::chrono::microseconds(static_cast<int64_t>(1e6 * delay)), SIGTERM);
  }
  ASSERT_TRUE(saved()) << "no instant left a snapshot";
  Words other = run;
  std::replace(other.begin(), other.end(), std::string("full"), std::string("summary"));
  expect_refusal(run_tool(folder.path, other), 2, "errors full, now summary");
  const Outcome last = run_tool(folder.path, run + Words{"--resume"});
  ASSERT_EQ(last.code, 0) << last.err;
  expect_whole("stopped");
}

// The disk fails at any call: the run says so or ends with exit 1, and the next one brings the whole result.
TEST_F(Crash, FailingDisk) {
  for (const char* fault : {"enospc:1", "enospc:40", "eio:9", "eio:60", "short:5", "short:70", "fsync:1", "fsync:20",
                            "fsync:42", "rename:2", "rename:41"}) {
    const std::string out = fmt::format("fault-{}", fault);
    const Outcome hit = run_tool(
        folder.path, kRun + Words{"--out", out},
        fmt::format("env LD_PRELOAD={} HESPER_FAULT={}", HESPER_FAULTS, fault) + " sh -c '\"$0\" \"$@\" >.out 2>.err'");
    if (hit.code != 0) expect_refusal(hit, 1, "cannot write");
    const Outcome last = run_tool(folder.path, kRun + Words{"--out", out});
    ASSERT_EQ(last.code, 0) << fault << last.err;
    expect_whole(out);
  }
}

TEST_F(Crash, DamagedSnapshotIsToldAndLeftOut) {
  fs::create_directories(folder / "whole2");
  const fs::path name = fs::path(files[0]).stem();
  std::string first;  // the snapshot is named after the first curvature
  for (const fs::path& file : files)
    if (file.extension() == ".pt" && (first.empty() || file.stem().string().size() < first.size()))
      first = file.stem().string();
  std::ofstream(folder / "whole2" / (first + ".snapshot")) << "torn";
  Words told = kRun;
  std::erase(told, std::string("--quiet"));
  const Outcome refused = run_tool(folder.path, told + Words{"--out", "whole2", "--resume"});
  expect_refusal(refused, 1, ".snapshot");
  const Outcome last = run_tool(folder.path, told + Words{"--out", "whole2"});
  ASSERT_EQ(last.code, 0) << last.err;
  EXPECT_NE((last.out + last.err).find("beginning anew"), std::string::npos) << last.out << last.err;
  expect_whole("whole2");
}

}  // namespace
}  // namespace hesper
