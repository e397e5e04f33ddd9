// Whole runs on GPUs: weights streamed, the tape on the host, a model on two GPUs, a rank a GPU. What one GPU gives
// that holds everything is the reference: the same bits, for ranks the same to the rounding of fp64 sums in two orders.
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
  Words command_in(const Words& command, const Words& more) const {
    return command + Words{"--model", model.string(), "--token-ids", "many.npy",    "--b",    "2",     "--seqlen",
                           "256",     "--device",     "cuda",        "--overwrite", "--json", "--out", "out"} +
           more;
  }
  /// The plan of a run of two windows, its results in folder/out.
  nlohmann::json plan_of_run(const Words& command, const Words& more) {
    fs::remove_all(folder / "out");
    const Outcome outcome = run(command_in(command, more));
    EXPECT_EQ(outcome.code, 0) << fmt::format("{}", fmt::join(command, " ")) << outcome.err;
    return outcome.code == 0 ? last_event(outcome, "plan") : nlohmann::json();
  }
  /// The run once in memory and then in less: the same numbers, weights streamed; hands back the plan.
  class InLess {
   public:
    InLess(GpuRoom& room, const Words& command) : room_(room), command_(command), kept_(room.plan_of_run(command, {})) {
      EXPECT_EQ(kept_["streamed"], false);
      numbers_ = numbers_of(room.folder / "out");
      EXPECT_FALSE(numbers_.empty());
    }
    double kept_mib() const { return kept_["memory"].get<double>() / (1 << 20); }
    nlohmann::json operator()(double mib) const {
      nlohmann::json plan = room_.plan_of_run(command_, {"--memory-limit", fmt::format("{:.0f}MiB", mib)});
      EXPECT_EQ(plan["streamed"], true) << command_[0] << " in " << mib;
      EXPECT_TRUE(numbers_of(room_.folder / "out") == numbers_) << command_[0] << " in " << mib;
      return plan;
    }

   private:
    GpuRoom& room_;
    Words command_;
    nlohmann::json kept_;
    std::map<std::string, std::string> numbers_;
  };
  /// From the least that a run says it needs, where its tape lies on the host, up to where the tape stays on the GPU.
  void expect_same_bits(const Words& command) {
    const InLess in_less(*this, command);
    const Outcome refused = run(command_in(command, {"--memory-limit", "1MiB"}));
    const size_t at = refused.err.find(" needs ");
    ASSERT_NE(at, std::string::npos) << refused.out << refused.err;
    const double least = std::stod(refused.err.substr(at + 7)) + 1;
    EXPECT_EQ(in_less(least)["spilled"], true);
    double mib = least * 1.1;
    while (in_less(mib)["spilled"] == true && !HasFailure()) mib *= 1.1;
  }
  const Words block{"--layer", "self_attn.q_proj", "--block", "1", "--precision", "bf16x3"};
  fs::path model;
};

TEST_F(GpuRoom, Exact) {
  expect_same_bits(Words{"exact", "--t", "8", "--pass", "two-pass", "--directions", "8"} + block);
}
TEST_F(GpuRoom, Diag) { expect_same_bits(Words{"diag", "--probes", "4", "--directions", "4"} + block); }
TEST_F(GpuRoom, DiagExact) {
  expect_same_bits(Words{"diag", "--exact", "--rows", "0:1", "--directions", "32"} + block);
}
TEST_F(GpuRoom, Fisher) {
  expect_same_bits(Words{"fisher", "--kind", "gauss-newton", "--probes", "4", "--directions", "4", "--rows", "0:64"} +
                   block);
}
TEST_F(GpuRoom, Sweep) {  // a Gram pass, whose tape stays
  const InLess in_less(*this, Words{"sweep", "--t", "8", "--directions", "8"} + block);
  in_less(0.55 * in_less.kept_mib());
}
TEST_F(GpuRoom, Quadratic) {
  const TemporaryFolder elsewhere;
  const fs::path other = random_model(elsewhere, wide_llama(), at::kFloat);
  const InLess in_less(*this, {"quadratic", "--against", other.string(), "--group", "block"});
  in_less(0.97 * in_less.kept_mib());  // the moved weights of the actual losses are what takes most
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
