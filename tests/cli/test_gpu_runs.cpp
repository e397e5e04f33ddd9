// Whole runs on GPUs: weights streamed, the tape on the host, a model on two GPUs, a rank a GPU. What one GPU gives that
// holds everything is the reference: the same bits, for ranks the same to the rounding of fp64 sums in two orders.
#include <fmt/ranges.h>

#include "gpu.h"
#include "results.h"
#include "run/random_models.h"

namespace hesper {
namespace {

class GpuRuns : public Results {
 protected:
  Outcome run(const Words& words) const { return run_tool(folder.path, words); }
};

/// An fp16 model whose fp32 copy and tape may or may not fit.
class GpuRoom : public GpuRuns {
 protected:
  void SetUp() override {
    HESPER_NEEDS_GPU();
    model = random_model(folder, wide_llama(), at::kHalf);
    write_npy(folder / "many.npy", at::randint(4, 2000, {2048}, at::kInt));
  }
  /// The plan of a run of two windows, its results in folder/out.
  nlohmann::json plan_of_run(const Words& command, const Words& more) {
    fs::remove_all(folder / "out");
    const Outcome outcome = run(command + Words{"--model", model.string(), "--token-ids", "many.npy", "--b", "2", "--seqlen",
                                                "256", "--device", "cuda", "--json", "--out", "out"} + more);
    EXPECT_EQ(outcome.code, 0) << fmt::format("{}", fmt::join(command, " ")) << outcome.err;
    return outcome.code == 0 ? last_event(outcome, "plan") : nlohmann::json();
  }
  /// MiB in which weights stream, and in which the tape goes to the host as well.
  void expect_same_bits(const Words& command, int64_t streams, int64_t spills) {
    const nlohmann::json kept = plan_of_run(command, {});
    ASSERT_FALSE(kept.is_null());
    EXPECT_EQ(kept["streamed"], false);
    const auto numbers = numbers_of(folder / "out");
    EXPECT_FALSE(numbers.empty());
    for (const auto& [mib, spilled] : {std::pair{streams, false}, {spills, true}}) {
      if (mib == 0) continue;
      const std::string limit = fmt::format("{}MiB", mib);
      const nlohmann::json plan = plan_of_run(command, {"--memory-limit", limit});
      ASSERT_FALSE(plan.is_null());
      EXPECT_EQ(plan["streamed"], true) << command[0] << " in " << limit;
      EXPECT_EQ(plan["spilled"], spilled) << command[0] << " in " << limit;
      EXPECT_EQ(numbers_of(folder / "out"), numbers) << command[0] << " in " << limit;
    }
  }
  const Words block{"--layer", "self_attn.q_proj", "--block", "1"};
  fs::path model;
};

TEST_F(GpuRoom, Exact) {
  expect_same_bits(Words{"exact", "--t", "8", "--pass", "two-pass", "--directions", "8"} + block, 700, 600);
}
TEST_F(GpuRoom, Diag) { expect_same_bits(Words{"diag", "--probes", "4", "--directions", "4"} + block, 650, 550); }
TEST_F(GpuRoom, DiagExact) {
  expect_same_bits(Words{"diag", "--exact", "--rows", "0:1", "--directions", "32"} + block, 1000, 900);
}
TEST_F(GpuRoom, Fisher) {
  expect_same_bits(Words{"fisher", "--kind", "gauss-newton", "--probes", "4", "--directions", "4", "--rows", "0:64"} + block,
                   650, 550);
}
TEST_F(GpuRoom, Sweep) { expect_same_bits(Words{"sweep", "--t", "8", "--directions", "8"} + block, 700, 600); }
TEST_F(GpuRoom, Quadratic) {
  const TemporaryFolder elsewhere;
  const fs::path other = random_model(elsewhere, wide_llama(), at::kFloat);
  expect_same_bits({"quadratic", "--against", other.string(), "--group", "block"}, 700, 0);
}

class SeveralGpus : public GpuRuns {
 protected:
  const Words commands[5] = {
      {"exact", "--t", "6", "--curvature", "all", "--errors", "full"},
      {"diag", "--layer", "q_proj,v_proj", "--probes", "6", "--errors", "full"},
      {"diag", "--layer", "v_proj", "--exact"},
      {"fisher", "--kind", "gauss-newton", "--layer", "q_proj", "--probes", "6"},
      {"sweep", "--over", "probes", "--layer", "v_proj", "--probes", "5"},
  };
  void expect_same_on_two(const Words& before, const std::string& device) const {
    for (const Words& command : commands) {
      fs::remove_all(folder / "one"), fs::remove_all(folder / "two");
      const Outcome one = run(command + data("one") + Words{"--device", "cuda:0"});
      ASSERT_EQ(one.code, 0) << one.out << one.err;
      const Outcome two = run(before + command + data("two") + Words{"--device", device});
      ASSERT_EQ(two.code, 0) << two.out << two.err;
      expect_same("one", "two");
    }
  }
};

TEST_F(SeveralGpus, BlocksOnTwo) {
  HESPER_NEEDS_GPUS(2);
  expect_same_on_two({}, "cuda:0,cuda:1");
}
TEST_F(SeveralGpus, ARankEach) {
  HESPER_NEEDS_GPUS(2);
  expect_same_on_two({"launch", "-n", "2"}, "cuda");
}

}  // namespace
}  // namespace hesper
