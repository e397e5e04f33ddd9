// Many processes of one run: the result of one process to fp64 rounding (precision fp64; a window's own numbers are the
// same bits, the sums over windows run in another order), and what happens where one of them dies.
#include <chrono>
#include <fstream>
#include <thread>

#include "results.h"

namespace hesper {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

class RanksTool : public Results {
 protected:
  Outcome run(const Words& words) const { return run_tool(folder.path, words); }
  /// A run of some seconds: 60 windows of 10 tokens.
  Words long_run(const std::string& out, const Words& by = {"--probes", "32"}) const {
    at::manual_seed(2);
    write_npy(folder / "many.npy", at::randint(4, 40, {60, 10}, at::kInt));
    const Words data{"diag", "--model", golden_folder("llama-gqa"), "--token-ids", "many.npy", "--b", "60"};
    const Words small{"--layer", "q_proj,v_proj", "--directions", "1", "--precision", "fp64"};
    return data + small + by + Words{"--snapshot-every", "0.2", "--out", out};
  }
  static std::vector<pid_t> children_of(pid_t process) {
    std::ifstream list(fmt::format("/proc/{}/task/{}/children", process, process));
    std::vector<pid_t> out;
    for (pid_t child; list >> child;) out.push_back(child);
    return out;
  }
  bool has_snapshot(const std::string& out) const {
    return fs::exists(folder / out) && !files(out, ".snapshot").empty();
  }
  /// Waits until f() or for a minute.
  template <class F>
  static bool wait_for(F f) {
    for (const auto begin = Clock::now(); Clock::now() - begin < 60s; std::this_thread::sleep_for(10ms))
      if (f()) return true;
    return false;
  }
  static int wait_for_end(pid_t process) {
    int status = 0;
    ::waitpid(process, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
};

TEST_F(RanksTool, EqualOneProcess) {
  const Words commands[] = {
      {"exact", "--t", "6", "--curvature", "all", "--errors", "full"},
      {"diag", "--layer", "q_proj,v_proj", "--probes", "6", "--errors", "full"},
      {"diag", "--layer", "v_proj", "--exact"},
      {"fisher", "--kind", "gauss-newton", "--layer", "q_proj", "--probes", "6"},
      {"sweep", "--over", "probes", "--layer", "v_proj", "--probes", "5", "--truth", "0:2"},
      {"exact", "--layer", "q_proj,v_proj", "--each-layer", "--t", "3"},
      {"diag", "--layer", "q_proj,v_proj", "--method", "krylov", "--probes", "40"},
      {"diag", "--layer", "v_proj", "--rel-error", "0.1", "--of", "trace", "--probes", "64"},
      {"diag", "--layer", "q_proj,v_proj", "--probe-scope", "auto", "--probes", "8"},
      {"diag", "--layer", "q_proj,v_proj", "--method", "auto", "--probes", "64"},
  };
  for (size_t i = 0; i < std::size(commands); ++i) {
    const std::string whole = fmt::format("whole{}", i);
    ASSERT_EQ(run(commands[i] + data(whole)).code, 0);
    for (const char* n : {"2", "4"}) {
      if (i > 0 && (n[0] == '2') == (i % 2 == 0)) continue;
      const std::string out = fmt::format("{}-{}", n, i);
      const Outcome outcome = run(Words{"launch", "-n", n} + commands[i] + data(out));
      ASSERT_EQ(outcome.code, 0) << outcome.out << outcome.err;
      expect_same(whole, out);
      EXPECT_EQ(outcome.out.find("[1]"), std::string::npos) << "rank 0 alone speaks: " << outcome.out;
    }
  }
}

// kill -9 of one of three: told at once, and another number of ranks goes on to the result of one process.
TEST_F(RanksTool, KilledRankIsToldAndTheRunGoesOn) {
  ASSERT_EQ(run(long_run("whole")).code, 0);
  const pid_t launcher =
      start_tool(folder.path, Words{"launch", "-n", "3"} + long_run("ranks"), folder / "out", folder / "err");
  ASSERT_TRUE(wait_for([&] { return has_snapshot("ranks"); })) << read_bytes(folder / "err");
  const std::vector<pid_t> ranks = children_of(launcher);
  ASSERT_EQ(ranks.size(), 3u);
  const auto begin = Clock::now();
  ::kill(ranks[1], SIGKILL);
  EXPECT_EQ(wait_for_end(launcher), 1);
  EXPECT_LT(Clock::now() - begin, 30s);
  EXPECT_NE(read_bytes(folder / "err").find("rank 1 of 3 was ended by signal 9"), std::string::npos)
      << read_bytes(folder / "err");
  for (const pid_t rank : ranks) EXPECT_NE(::kill(rank, 0), 0) << "still running";
  ASSERT_TRUE(has_snapshot("ranks"));
  const Outcome last = run(Words{"launch", "-n", "2"} + long_run("ranks") + Words{"--resume"});
  ASSERT_EQ(last.code, 0) << last.err;
  expect_same("whole", "ranks");
}

// A signal to the launcher reaches all: one snapshot, one line, exit code 130; one process goes on.
TEST_F(RanksTool, InterruptedTogether) {
  ASSERT_EQ(run(long_run("whole")).code, 0);
  const pid_t launcher =
      start_tool(folder.path, Words{"launch", "-n", "2"} + long_run("ranks"), folder / "out", folder / "err");
  ASSERT_TRUE(wait_for([&] { return has_snapshot("ranks"); })) << read_bytes(folder / "err");
  ::kill(launcher, SIGTERM);
  EXPECT_EQ(wait_for_end(launcher), 130) << read_bytes(folder / "err");
  const std::string told = read_bytes(folder / "err");
  EXPECT_EQ(std::count(told.begin(), told.end(), '\n'), 1) << told;
  EXPECT_NE(told.find("snapshot saved"), std::string::npos) << told;
  ASSERT_EQ(run(long_run("ranks") + Words{"--resume"}).code, 0);
  expect_same("whole", "ranks");
}

// Stages that need all windows of those before them: stopped twice, each time another number of ranks goes on.
TEST_F(RanksTool, OrderedStagesGoOn) {
  for (const Words& by : {Words{"--method", "krylov"}, Words{"--method", "auto"}, Words{"--rel-error", "0.01"}}) {
    const auto command = [&](const std::string& out) { return long_run(out, by + Words{"--probes", "64"}); };
    const std::string whole = by[1] + "-whole", shared = by[1] + "-ranks";
    ASSERT_EQ(run(command(whole)).code, 0);
    for (const char* n : {"3", "2"}) {
      const auto age = [&] {
        return has_snapshot(shared) ? fs::last_write_time(folder / shared / files(shared, ".snapshot")[0])
                                    : fs::file_time_type::min();
      };
      const auto before = age();
      const pid_t launcher =
          start_tool(folder.path, Words{"launch", "-n", n} + command(shared), folder / "out", folder / "err");
      ASSERT_TRUE(wait_for([&] { return age() > before; })) << by[1] << read_bytes(folder / "err");
      ::kill(launcher, SIGTERM);
      ASSERT_EQ(wait_for_end(launcher), 130) << by[1] << read_bytes(folder / "err");
    }
    const Outcome last = run(command(shared) + Words{"--resume"});
    ASSERT_EQ(last.code, 0) << last.err;
    expect_same(whole, shared);
  }
}

// With no launcher that would see it: the others find out by themselves.
TEST_F(RanksTool, DeadRankIsFoundWithin30Seconds) {
  const std::string port = std::to_string(20000 + ::getpid() % 20000);
  std::vector<pid_t> ranks;
  for (const char* rank : {"0", "1"}) {
    for (const auto& [name, value] : {std::pair<const char*, std::string>{"RANK", rank},
                                      {"WORLD_SIZE", "2"},
                                      {"MASTER_ADDR", "127.0.0.1"},
                                      {"MASTER_PORT", port},
                                      {"OMP_NUM_THREADS", "1"}})
      ::setenv(name, value.c_str(), 1);
    ranks.push_back(start_tool(folder.path, long_run("ranks"), folder / fmt::format("out{}", rank),
                               folder / fmt::format("err{}", rank)));
  }
  for (const char* name : {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) ::unsetenv(name);
  ASSERT_TRUE(wait_for([&] { return has_snapshot("ranks"); })) << read_bytes(folder / "err0");
  const auto begin = Clock::now();
  ::kill(ranks[1], SIGKILL);
  EXPECT_EQ(wait_for_end(ranks[0]), 1);
  EXPECT_LT(Clock::now() - begin, 30s);
  EXPECT_NE(read_bytes(folder / "err0").find("hesper: rank 1 of 2 has died"), std::string::npos)
      << read_bytes(folder / "err0");
  wait_for_end(ranks[1]);
}

// Without --memory-limit: what is free, shared by the ranks of a host.
TEST_F(RanksTool, ShareMemory) {
  const Words command = Words{"diag", "--layer", "v_proj", "--probes", "4"};
  const auto limit = [&](const Words& words, const std::string& out) {
    EXPECT_EQ(run(words + command + data(out)).code, 0);
    const auto record = nlohmann::json::parse(read_bytes(folder / out / files(out, ".json").at(0)));
    return record["notes"]["plan"]["memory_limit"].get<double>();
  };
  const double alone = limit({}, "one"), shared = limit({"launch", "-n", "4"}, "four");
  EXPECT_GT(shared, 0);
  EXPECT_LT(shared, alone / 3);  // other processes of the machine come and go
}

TEST_F(RanksTool, Refusals) {
  expect_refusal(run(Words{"launch", "-n", "6", "diag", "--layer", "v_proj", "--probes", "4"} + data("r")), 2,
                 "WORLD_SIZE 6: there are only 5 windows to share");
  expect_refusal(run(Words{"launch", "-n", "2", "sweep", "--over", "b", "--t", "4"} + data("r")), 2,
                 "WORLD_SIZE 2: a sweep over b");
  expect_refusal(run({"launch", "-n", "2"}), 2, "launch: a command is missing");
  expect_refusal(run({"launch", "-n", "2", "exakt"}), 2, "exakt: no such command");
}

// The same under torchrun, where the oracle's environment has it.
TEST_F(RanksTool, Torchrun) {
  const std::string torchrun = fmt::format("{}/.venv-oracle/bin/torchrun", HESPER_SOURCE_DIR);
  if (!fs::exists(torchrun)) GTEST_SKIP() << "no " << torchrun;
  const Words command = Words{"diag", "--layer", "v_proj", "--probes", "6"};
  ASSERT_EQ(run(command + data("whole")).code, 0);
  const Outcome outcome =
      run_tool(folder.path, command + data("ranks"),
               fmt::format("{} --standalone --nproc-per-node 2 --no-python sh -c '\"$0\" \"$@\" >>.out 2>>.err'",
                           quoted(torchrun)));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  expect_same("whole", "ranks");
}

}  // namespace
}  // namespace hesper
