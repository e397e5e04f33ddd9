// Runs that are killed, interrupted or hit by a failing disk, and then started again: the result is bit for bit that of
// a run which nothing happened to. All commands that keep snapshots, one after another.

#include <chrono>
#include <random>
#include <thread>

#include "checkpoint/safetensors.h"
#include "hessian/named_tensors.h"
#include "tool.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// A run with a snapshot after every step.
struct Kind {
  const char* name;
  Words words;
};
const Words kExact = {"exact", "--t",      "8",    "--pass",      "two-pass", "--directions",
                      "1",     "--errors", "full", "--curvature", "all"};
const Kind kKinds[] = {
    {"exact", kExact},
    {"diag", {"diag", "--layer", "q_proj,up_proj", "--probes", "12", "--directions", "2", "--errors", "full"}},
    {"split", {"diag", "--layer", "q_proj,o_proj", "--method", "split", "--probes", "8", "--directions", "2"}},
    {"krylov", {"diag", "--layer", "q_proj,v_proj", "--method", "krylov", "--probes", "40", "--directions", "4"}},
    {"auto", {"diag", "--layer", "q_proj,v_proj", "--method", "auto", "--probes", "64", "--directions", "8"}},
    {"rel-error", {"diag", "--layer", "v_proj", "--rel-error", "0.4", "--probes", "40", "--directions", "2"}},
    {"exact-diag", {"diag", "--layer", "q_proj", "--exact"}},
    {"fisher", {"fisher", "--kind", "gauss-newton", "--layer", "q_proj", "--probes", "12", "--directions", "2"}},
    {"fisher-batch", {"fisher", "--kind", "batch", "--layer", "q_proj", "--model-input-bs", "2"}},
    {"gram", {"fisher", "--kind", "input-gram", "--layer", "q_proj"}},
    {"sweep", {"sweep", "--t", "8", "--directions", "2"}},
    {"sweep-diag", {"sweep", "--for", "diag", "--layer", "q_proj", "--probes", "6", "--directions", "2"}},
    {"sweep-probes",
     {"sweep", "--over", "probes", "--layer", "q_proj", "--probes", "9", "--directions", "2", "--truth", "0:2"}},
    {"quadratic", {"quadratic", "--against", "other", "--rank"}},
};

class Crash : public testing::Test {
 protected:
  Crash() {
    at::manual_seed(1);
    write_npy(folder / "ids.npy", at::randint(4, 40, {60}, at::kInt));
    // A second checkpoint to go to: the first's numbers, some of their signs and sizes changed.
    fs::create_directory(folder / "other");
    fs::copy_file(golden_folder("llama-gqa") + "/config.json", folder / "other" / "config.json");
    const SafetensorsFile model(golden_folder("llama-gqa") + "/model.safetensors");
    NamedTensors moved;
    for (const TensorInfo& info : model.tensors()) {
      const at::Tensor value = model.view(info.name);
      moved.emplace_back(info.name, value + 1e-3 * at::randn(value.sizes(), value.options()));
    }
    write_safetensors((folder / "other" / "model.safetensors").string(), moved);
  }

  static Words words(const Kind& kind, const std::string& out) {
    return kind.words + Words{"--model",
                              golden_folder("llama-gqa"),
                              "--token-ids",
                              "ids.npy",
                              "--bos",
                              "none",
                              "--seqlen",
                              "12",
                              "--b",
                              "5",
                              "--quiet",
                              "--snapshot-every",
                              "0",
                              "--out",
                              out};
  }

  /// Runs it once undisturbed, into `whole-NAME`; hands back its seconds.
  double run_whole(const Kind& kind) const {
    const Clock::time_point begin = Clock::now();
    const Outcome outcome = run_tool(folder.path, words(kind, fmt::format("whole-{}", kind.name)));
    EXPECT_EQ(outcome.code, 0) << kind.name << outcome.err;
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }

  /// Numbers of a result: everything but pictures and the records, which say how long it took.
  std::vector<fs::path> numbers(const std::string& out) const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder / out)) {
      const std::string kind = entry.path().extension();
      if (kind == ".pt" || kind == ".safetensors" || kind == ".csv")
        files.push_back(fs::relative(entry.path(), folder / out));
    }
    std::sort(files.begin(), files.end());
    return files;
  }
  void expect_whole(const Kind& kind, const std::string& out) const {
    const std::string whole = fmt::format("whole-{}", kind.name);
    EXPECT_EQ(numbers(out), numbers(whole)) << kind.name;
    EXPECT_FALSE(numbers(whole).empty()) << kind.name;
    for (const fs::path& file : numbers(whole))
      EXPECT_EQ(read_bytes(folder / out / file), read_bytes(folder / whole / file)) << out << " " << file;
    EXPECT_EQ(snapshots(out), 0) << out;
  }
  int64_t snapshots(const std::string& out) const {
    if (!fs::exists(folder / out)) return 0;
    return std::count_if(
        fs::recursive_directory_iterator(folder / out), fs::recursive_directory_iterator(),
        [](const auto& entry) { return entry.path().filename().string().find(".snapshot") != std::string::npos; });
  }

  /// Starts a run and sends it `signal` after `delay`; true where it had ended by then.
  bool run_and_signal(const Kind& kind, const std::string& out, double delay, int signal) const {
    const pid_t process = start_tool(folder.path, words(kind, out), "/dev/null", "/dev/null");
    std::this_thread::sleep_for(std::chrono::duration<double>(delay));
    ::kill(process, signal);
    int status = 0;
    ::waitpid(process, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  const TemporaryFolder folder;
};

/// 20 kills over all commands; 200 with HESPER_LONG_TESTS.
TEST_F(Crash, KilledAtRandomInstants) {
  const bool many = std::getenv("HESPER_LONG_TESTS") != nullptr;
  const int count = static_cast<int>(std::size(kKinds)), kills = many ? 200 : 20;
  std::mt19937 random(7);
  int killed = 0;
  for (int i = 0; i < count; ++i) {
    const Kind& kind = kKinds[i];
    const double seconds = run_whole(kind);
    std::uniform_real_distribution<double> instant(0.3 * seconds, seconds);
    const int most = kills * (i + 1) / count;  // killed by the end of this kind
    for (int runs = 0; killed < most; ++runs) {
      const std::string out = fmt::format("killed-{}-{}", kind.name, runs);
      bool ended = false;
      while (!ended && killed < most) {
        ended = run_and_signal(kind, out, instant(random), SIGKILL);
        killed += ended ? 0 : 1;
      }
      if (!ended) {
        const Outcome last = run_tool(folder.path, words(kind, out));
        ASSERT_EQ(last.code, 0) << kind.name << last.err;
      }
      expect_whole(kind, out);
    }
  }
  EXPECT_EQ(killed, kills);
}

// A signal saves and says so; --resume goes on; without a snapshot it refuses; another configuration is refused.
TEST_F(Crash, InterruptedAndResumed) {
  const Kind& kind = kKinds[0];
  const double seconds = run_whole(kind);
  const Words run = words(kind, "stopped");
  expect_refusal(run_tool(folder.path, run + Words{"--resume"}), 2, "there is no snapshot");
  for (double delay = seconds; snapshots("stopped") == 0 && delay > 0.05 * seconds; delay *= 0.85) {
    fs::remove_all(folder / "stopped");
    run_and_signal(kind, "stopped", delay, SIGTERM);
  }
  ASSERT_GT(snapshots("stopped"), 0) << "no instant left a snapshot";
  Words other = run;
  std::replace(other.begin(), other.end(), std::string("full"), std::string("summary"));
  expect_refusal(run_tool(folder.path, other), 2, "errors full, now summary");
  const Outcome last = run_tool(folder.path, run + Words{"--resume"});
  ASSERT_EQ(last.code, 0) << last.err;
  expect_whole(kind, "stopped");
}

/// A failing disk ends a run by exit 1 and one line, or does not disturb it.
void expect_told(const Outcome& hit) {
  if (hit.code != 0) expect_refusal(hit, 1, "cannot write");
}

// The disk fails at any call: the run says so or ends with exit 1, and the next one brings the whole result.
TEST_F(Crash, FailingDisk) {
  const auto hit = [&](const Kind& kind, const std::string& fault) {
    const std::string out = fmt::format("{}-{}", kind.name, fault);
    expect_told(run_tool(folder.path, words(kind, out),
                         fmt::format("env LD_PRELOAD={} HESPER_FAULT={}", HESPER_FAULTS, fault) +
                             " sh -c '\"$0\" \"$@\" >.out 2>.err'"));
    const Outcome last = run_tool(folder.path, words(kind, out));
    ASSERT_EQ(last.code, 0) << kind.name << fault << last.err;
    expect_whole(kind, out);
  };
  run_whole(kKinds[0]);
  for (const char* fault : {"enospc:1", "enospc:40", "eio:9", "eio:60", "short:5", "short:70", "fsync:1", "fsync:20",
                            "fsync:42", "rename:2", "rename:41"})
    hit(kKinds[0], fault);
  const char* faults[] = {"enospc:3", "eio:4", "short:3", "fsync:2", "rename:3"};
  for (size_t i = 1; i < std::size(kKinds); ++i) {
    run_whole(kKinds[i]);
    hit(kKinds[i], faults[i % std::size(faults)]);
  }
}

// A torn file is told and left out; with --resume it is refused. Of every fourth command, of all in the long mode.
TEST_F(Crash, TornSnapshotNeverCounts) {
  const size_t step = std::getenv("HESPER_LONG_TESTS") ? 1 : 4;
  for (size_t i = 0; i < std::size(kKinds); i += step) {
    const Kind& kind = kKinds[i];
    const double seconds = run_whole(kind);
    std::string out;
    for (double part = 0.95; snapshots(out) == 0 && part > 0.05; part *= 0.9) {
      out = fmt::format("left-{}-{}", kind.name, part);
      run_and_signal(kind, out, part * seconds, SIGKILL);
    }
    if (snapshots(out) == 0) continue;  // too short to be caught in the middle here and now
    fs::path file;
    for (const auto& entry : fs::recursive_directory_iterator(folder / out))
      if (entry.path().extension() == ".snapshot") file = entry.path();
    if (file.empty()) continue;
    const std::string bytes = read_bytes(file);
    std::ofstream(file, std::ios::binary) << bytes.substr(0, bytes.size() / 2);
    expect_refusal(run_tool(folder.path, words(kind, out) + Words{"--resume"}), 1, ".snapshot");
    Words told = words(kind, out);
    std::erase(told, std::string("--quiet"));
    const Outcome last = run_tool(folder.path, told);
    ASSERT_EQ(last.code, 0) << kind.name << last.err;
    EXPECT_NE((last.out + last.err).find("beginning anew"), std::string::npos) << kind.name << last.out << last.err;
    expect_whole(kind, out);
  }
}

// The folder cannot be written: refused before the long part.
TEST_F(Crash, ReadOnlyFolder) {
  if (::geteuid() == 0) GTEST_SKIP() << "root writes everywhere";
  fs::create_directory(folder / "closed");
  fs::permissions(folder / "closed", fs::perms::owner_read | fs::perms::owner_exec);
  for (const Kind& kind : kKinds)
    expect_refusal(run_tool(folder.path, words(kind, "closed")), 1, "cannot write closed");
  fs::permissions(folder / "closed", fs::perms::owner_all);
}

}  // namespace
}  // namespace hesper
