// hesper fisher end to end, on golden models.
#include <ATen/ATen.h>

#include "checkpoint/safetensors.h"
#include "cli/tool.h"
#include "oracle/golden.h"
#include "report/pt_file.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;

// fp64 against transformers: the tolerance of tests/oracle/test_golden.cpp, squared gradients having twice the error.
constexpr double kTolerance = 2e-12;

class FisherTool : public testing::Test {
 protected:
  void SetUp() override { write_npy(folder / "ids.npy", golden.ids); }
  Outcome fisher(const Words& more) {
    return run_tool(folder.path, Words{"fisher", "--model", golden.folder, "--token-ids", "ids.npy"} + more);
  }
  nlohmann::json json(const std::string& file) { return nlohmann::json::parse(read_bytes(folder / file)); }
  static double error(const at::Tensor& a, const at::Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }

  const oracle::Golden golden = oracle::read_golden("opt-pre");
  const TemporaryFolder folder;
  // of method
  static std::string name(const std::string& method) {
    return "data/opt-pre/diag_hessian/hessian_diag_self_attn.q_proj_block0_" + method + "_b3_seed0_T10";
  }
};

// The reference's kind and name; all windows in one batch make it the square of the recorded gradient.
TEST_F(FisherTool, BatchIsTheSquaredGradientOfTheBatch) {
  const Outcome outcome = fisher({"--kind", "batch", "--model_input_bs", "3", "--precision", "fp64"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  const at::Tensor d = read_pt(folder / (name("fisher") + ".pt"));
  ASSERT_EQ(d.dim(), 2);
  EXPECT_LE(error(d[0].slice(0, 0, 8), golden.selections[0].gradient.square()), kTolerance);
  const auto record = json(name("fisher") + ".json");
  EXPECT_EQ(record["configuration"]["kind"], "batch");
  EXPECT_EQ(record["configuration"]["model_input_bs"], 3);
  EXPECT_EQ(record["notes"]["batches"], 1);
  EXPECT_NE(record["notes"]["definition"].get<std::string>().find("depends on model_input_bs"), std::string::npos);
  EXPECT_NE(outcome.out.find("--model-input-bs, here 3"), std::string::npos) << outcome.out;
  for (const char* extension : {".png", ".pdf", ".csv"}) EXPECT_TRUE(fs::exists(folder / (name("fisher") + extension)));
  // Another batch size is another quantity: never written over it.
  expect_refusal(fisher({"--kind", "batch", "--precision", "fp64"}), 2, "model_input_bs 3, now 1");
}

TEST_F(FisherTool, EveryKindWritesItsFiles) {
  for (const std::string kind : {"sequence", "token", "gauss-newton", "input-gram"}) {
    const bool sampled = kind == "token" || kind == "gauss-newton";
    const Outcome outcome = fisher(Words{"--kind", kind, "--json"} + (sampled ? Words{"--vhp_samples", "6"} : Words{}));
    ASSERT_EQ(outcome.code, 0) << kind << outcome.err;
    const auto result = last_event(outcome, "result");
    EXPECT_EQ(result["file"], name(kind));
    EXPECT_EQ(result["tensors"][0]["samples"], sampled ? 6 : 1);
    EXPECT_LE(result["precision_error"].get<double>(), 1e-4);
    const at::Tensor d = read_pt(folder / (name(kind) + ".pt"));
    EXPECT_EQ(d.scalar_type(), at::kFloat);
    EXPECT_TRUE(d.ge(0).all().item<bool>()) << kind;
    const auto errors = json(name(kind) + ".json")["tensors"][0]["relative_errors"]["diagonal"];
    EXPECT_TRUE(errors["probe"].is_number()) << errors;
    EXPECT_EQ(fs::exists(folder / (name(kind) + ".gram.pt")), kind == "input-gram");
  }
  const at::Tensor gram = read_pt(folder / (name("input-gram") + ".gram.pt"));
  const at::Tensor d = read_pt(folder / (name("input-gram") + ".pt"));
  EXPECT_EQ(gram.size(0), d.size(1));
  EXPECT_LE(error(d[1], gram.diagonal()), 1e-6);  // fp32 files
}

TEST_F(FisherTool, SeveralLayersAndFullErrors) {
  const Outcome outcome = fisher({"--kind", "gauss-newton", "--draw", "labels", "--probes", "4", "--layer", "fc1,fc2",
                                  "--block", "all", "--errors", "full", "--out", "o"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(fs::exists(folder / "o/diag_hessian/1/fc2_gauss-newton_b3_seed0_T10.pt"));
  std::string file;
  for (const auto& entry : fs::directory_iterator(folder / "o/diag_hessian"))
    if (entry.path().extension() == ".safetensors") file = entry.path().string();
  const SafetensorsFile tensors(file);
  for (const char* suffix : {"", ".stderr_probe", ".stderr_data"})
    EXPECT_TRUE(tensors.has(std::string("model.decoder.layers.1.fc1.weight") + suffix)) << suffix;
}

TEST_F(FisherTool, WrongUsageAndBadInput) {
  expect_refusal(fisher({}), 2, "--kind");
  expect_refusal(fisher({"--kind", "exact"}), 2, "exact");
  expect_refusal(fisher({"--kind", "batch", "--probes", "8"}), 2, "--probes 8: --kind batch takes no probes");
  expect_refusal(fisher({"--kind", "token", "--draw", "labels"}), 2, "--draw labels");
  expect_refusal(fisher({"--kind", "sequence", "--directions", "4"}), 2, "--directions 4");
  expect_refusal(fisher({"--kind", "gauss-newton", "--probes", "0"}), 2, "--probes");
  expect_refusal(fisher({"--kind", "input-gram", "--layer", "self_attn_layer_norm.weight"}), 2,
                 "not the matrix of a linear layer");
  expect_refusal(fisher({"--kind", "token", "--memory-limit", "1KiB"}), 1, "memory");
  expect_refusal(fisher({"--kind", "token", "--layer", "nothing"}), 2, "no such layer");
  EXPECT_FALSE(fs::exists(folder / "data"));
}

// A million probes take long; the signal comes once the plan has been said.
TEST_F(FisherTool, InterruptedLeavesASnapshotAlone) {
  const std::string script =
      "rm -f .out; \"$@\" >.out 2>.err & tool=$!; for i in $(seq 600); do grep -q 'at once' .out && break; sleep 0.1; "
      "done; "
      "kill -INT $tool; wait $tool";
  const Outcome outcome = run_tool(folder.path,
                                   {"fisher", "--model", golden.folder, "--token-ids", "ids.npy", "--kind", "token",
                                    "--probes", "1000000", "--out", "o"},
                                   fmt::format("sh -c {} sh", quoted(script)));
  expect_refusal(outcome, 130, "interrupted, snapshot saved: o/");
  for (const auto& entry : fs::recursive_directory_iterator(folder / "o"))
    EXPECT_TRUE(entry.is_directory() || entry.path().extension() == ".snapshot") << entry.path();
}

}  // namespace
}  // namespace hesper
