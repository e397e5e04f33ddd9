// hesper diag end to end, on golden models.
#include <ATen/ATen.h>

#include <sstream>

#include "checkpoint/safetensors.h"
#include "cli/tool.h"
#include "oracle/golden.h"
#include "report/pt_file.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;

class Diag : public testing::Test {
 protected:
  void SetUp() override { write_npy(folder / "ids.npy", golden.ids); }
  Outcome diag(const Words& more) {
    return run_tool(folder.path, Words{"diag", "--model", golden.folder, "--token-ids", "ids.npy"} + more);
  }
  nlohmann::json json(const std::string& file) { return nlohmann::json::parse(read_bytes(folder / file)); }
  static double error(const at::Tensor& a, const at::Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }

  const oracle::Golden golden = oracle::read_golden("opt-pre");
  const TemporaryFolder folder;
  const std::string query = "model.decoder.layers.0.self_attn.q_proj.weight";
};

TEST_F(Diag, OneLayerEndToEnd) {
  const Outcome outcome = diag({"--vhp_samples", "6", "--precision", "fp64", "--errors", "full"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  const std::string base = "data/opt-pre/diag_hessian/hessian_diag_self_attn.q_proj_block0_vhp_samples6_b3_seed0_T10";
  const at::Tensor d = read_pt(folder / (base + ".pt"));
  EXPECT_EQ(d.sizes(), at::IntArrayRef({16, 16}));
  EXPECT_EQ(d.scalar_type(), at::kDouble);
  EXPECT_TRUE(read_bytes(folder / (base + ".png")).starts_with("\x89PNG"));
  EXPECT_TRUE(read_bytes(folder / (base + ".pdf")).starts_with("%PDF"));
  const SafetensorsFile full((folder / (base + ".safetensors")).string());
  EXPECT_TRUE(at::equal(full.view(query), d));
  const at::Tensor probe = full.view(query + ".stderr_probe");
  EXPECT_EQ(full.view(query + ".stderr_data").sizes(), d.sizes());

  const auto record = json(base + ".json");
  EXPECT_EQ(record["command_line"][1], "diag");
  EXPECT_EQ(record["selection"][0]["tensor"], query);
  EXPECT_EQ(record["configuration"]["probes"], 6);
  EXPECT_EQ(record["products"], 18);
  const auto& tensor = record["tensors"][0];
  EXPECT_NEAR(tensor["trace"].get<double>(), d.sum().item<double>(), 1e-12);
  EXPECT_EQ(tensor["samples_per_window"], 6);
  EXPECT_EQ(tensor["window_groups"], 3);
  // The bar over the debiased norm, by hand.
  const double squared = probe.square().sum().item<double>(), norm = d.square().sum().item<double>() - squared;
  const auto& bar = tensor["relative_errors"]["diagonal"]["probe"];
  if (norm > 0)
    EXPECT_NEAR(bar.get<double>(), std::sqrt(squared / norm), 1e-9);
  else
    EXPECT_EQ(bar, "not resolved");

  std::istringstream lines(read_bytes(folder / (base + ".csv")));
  std::string line;
  std::getline(lines, line);
  EXPECT_TRUE(line.starts_with("tensor,unit,index,group,entries,diagonal,diagonal_probe"));
  std::map<std::string, int> units;
  for (; std::getline(lines, line);
       ++units[line.substr(line.find(',') + 1, line.find(',', line.find(',') + 1) - line.find(',') - 1)])
    EXPECT_EQ(std::count(line.begin(), line.end(), ','), 12) << line;
  EXPECT_EQ(units, (std::map<std::string, int>{{"layer", 1}, {"row", 16}, {"column", 16}, {"head", 4}, {"group", 16}}));
}

TEST_F(Diag, SeveralLayersShareARun) {
  const Outcome outcome = diag({"--layer", "all", "--block", "all", "--probes", "4", "--probe-scope", "joint",
                                "--errors", "full", "--out", "o", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto result = last_event(outcome, "result");
  EXPECT_EQ(result["tensors"].size(), 12u);
  EXPECT_EQ(result["products"], 12);  // joint: one product a probe and window
  const std::string base = result["file"];
  const SafetensorsFile all((folder / (base + ".safetensors")).string());
  EXPECT_EQ(all.tensors().size(), 36u);
  EXPECT_EQ(all.view("model.decoder.layers.1.fc1.weight").sizes(), at::IntArrayRef({36, 16}));
  EXPECT_TRUE(all.has("model.decoder.layers.1.fc1.weight.stderr_data"));
  EXPECT_TRUE(read_bytes(folder / (base + ".png")).starts_with("\x89PNG"));
  EXPECT_EQ(json(base + ".json")["tensors"].size(), 12u);
  const std::string one = "o/diag_hessian/1/fc1_vhp_samples4_joint_b3_seed0_T10";
  EXPECT_EQ(read_pt(folder / (one + ".pt")).sizes(), at::IntArrayRef({36, 16}));
  EXPECT_TRUE(fs::exists(folder / (one + ".pdf")));
  EXPECT_EQ(json(one + ".json")["tensors"].size(), 1u);
}

TEST_F(Diag, ExactEqualsTheGoldenDiagonal) {
  // The first golden selection: 8 weights of row 0 of q_proj.
  ASSERT_EQ(diag({"--exact", "--t", "8", "--precision", "fp64", "--out", "e", "--json"}).code, 0);
  std::string pt;
  for (const auto& entry : fs::directory_iterator(folder / "e/diag_hessian"))
    if (entry.path().extension() == ".pt") pt = entry.path().string();
  ASSERT_NE(pt.find("_exact_b3_seed0_T10_sel"), std::string::npos) << pt;
  const at::Tensor d = read_pt(pt);
  EXPECT_EQ(d.sizes(), at::IntArrayRef({1, 8}));
  EXPECT_LE(error(d.flatten(), golden.selections[0].hessian.diagonal()), 1e-12);

  const Outcome whole = diag({"--exact", "--precision", "fp64", "--out", "w"});
  ASSERT_EQ(whole.code, 0) << whole.err;
  const at::Tensor all = read_pt(folder / "w/diag_hessian/hessian_diag_self_attn.q_proj_block0_exact_b3_seed0_T10.pt");
  EXPECT_LE(error(all[0].slice(0, 0, 8), golden.selections[0].hessian.diagonal()), 1e-12);
}

TEST_F(Diag, StopsAtAnError) {
  const Outcome outcome = diag({"--rel-error", "0.5", "--of", "rows", "--out", "s", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const std::string base = last_event(outcome, "result")["file"];
  EXPECT_TRUE(base.ends_with("q_proj_block0_rel_error0.5_rows_b3_seed0_T10")) << base;
  const auto tensor = json(base + ".json")["tensors"][0];
  EXPECT_EQ(tensor["stop"], "reached");
  EXPECT_LE(tensor["relative_errors"]["rows"]["probe"].get<double>(), 0.5);
  EXPECT_GE(tensor["samples_per_window"].get<int>(), 8);
}

TEST_F(Diag, AnotherConfigurationIsNotOverwritten) {
  ASSERT_EQ(diag({"--probes", "2", "--out", "o"}).code, 0);
  expect_refusal(diag({"--probes", "2", "--out", "o", "--precision", "fp64"}), 2, "made with precision fp32, now fp64");
  EXPECT_EQ(diag({"--probes", "2", "--out", "o"}).code, 0);
  EXPECT_EQ(diag({"--probes", "2", "--out", "o", "--precision", "fp64", "--overwrite"}).code, 0);
  // A tensor's own files in a run of several.
  ASSERT_EQ(diag({"--layer", "q_proj,fc1", "--probes", "2", "--out", "p"}).code, 0);
  expect_refusal(diag({"--layer", "q_proj,fc2", "--probes", "2", "--out", "p"}), 2, "made with another selection");
}

TEST_F(Diag, BadInput) {
  expect_refusal(diag({"--probes", "0"}), 2, "--probes");
  expect_refusal(diag({"--rel-error", "2"}), 2, "--rel-error 2: a number between 0 and 1");
  expect_refusal(diag({"--rel-error", "0.1", "--probes", "4"}), 2, "--probes 4: --rel-error needs at least 8");
  expect_refusal(diag({"--of", "rows"}), 2, "--of rows");
  expect_refusal(diag({"--target", "corpus"}), 2, "--target corpus");
  expect_refusal(diag({"--rel-error", "0.1", "--target", "corpus", "--b", "1"}), 2, "at least 2 windows");
  expect_refusal(diag({"--rel-error", "0.1", "--of", "rows", "--layer", "self_attn.q_proj.bias"}), 2, "is no matrix");
  expect_refusal(diag({"--exact", "--probes", "3"}), 2, "--probes: --exact takes no probes");
  expect_refusal(diag({"--method", "hutch"}), 2, "--method");
  expect_refusal(diag({"--method", "krylov", "--exact"}), 2, "--method krylov: not with --exact");
  expect_refusal(diag({"--method", "krylov", "--probes", "31"}), 2, "--probes 31: --method krylov needs at least 32");
  for (const char* method : {"krylov", "auto"})
    for (const char* scope : {"joint", "auto"})
      expect_refusal(diag({"--method", method, "--probe-scope", scope}), 2,
                     fmt::format("--method {}: not with --probe-scope {}", method, scope));
  expect_refusal(diag({"--method", "split", "--exact"}), 2, "--method split: not with --exact");
  expect_refusal(diag({"--method", "split", "--curvature", "residual"}), 2,
                 "--method split: not with --curvature residual");
  expect_refusal(diag({"--group-size", "0"}), 2, "--group-size");
  expect_refusal(diag({"--memory-limit", "1KiB"}), 1, "memory");
  expect_refusal(diag({"--exact", "--memory-limit", "1KiB"}), 1, "memory");
  EXPECT_FALSE(fs::exists(folder / "data"));
}

TEST_F(Diag, MethodsSayWhatTheyDid) {
  const Outcome krylov = diag({"--method", "krylov", "--probes", "64", "--out", "o"});
  ASSERT_EQ(krylov.code, 0) << krylov.err;
  EXPECT_NE((krylov.out + krylov.err).find("vectors deflated by"), std::string::npos);
  const std::string end = "_b3_seed0_T10.json";
  const nlohmann::json basis =
      json("o/diag_hessian/hessian_diag_self_attn.q_proj_block0_vhp_samples64_krylov" + end)["tensors"][0]["basis"];
  EXPECT_GE(basis["vectors"], 8);
  EXPECT_GT(basis["products"], basis["vectors"]);
  const Outcome chosen = diag({"--method", "auto", "--probes", "64", "--layer", "q_proj,fc1", "--out", "p"});
  ASSERT_EQ(chosen.code, 0) << chosen.err;
  EXPECT_NE((chosen.out + chosen.err).find("error forecast of 64 products a window: hutchinson"), std::string::npos);
}

TEST_F(Diag, InterruptedLeavesASnapshotAlone) {
  const std::string script =
      "rm -f .out; \"$@\" >.out 2>.err & tool=$!; for i in $(seq 600); do grep -q two-pass .out && break; sleep 0.1; "
      "done; "
      "kill -$SIGNAL $tool; wait $tool";
  for (const char* signal : {"INT", "TERM"}) {
    const Outcome outcome = run_tool(folder.path,
                                     {"diag", "--model", golden.folder, "--token-ids", "ids.npy", "--probes", "1000000",
                                      "--directions", "1", "--out", "o"},
                                     fmt::format("SIGNAL={} sh -c {} sh", signal, quoted(script)));
    expect_refusal(outcome, 130, "interrupted, snapshot saved: o/");
    for (const auto& entry : fs::recursive_directory_iterator(folder / "o"))
      EXPECT_TRUE(entry.is_directory() || entry.path().extension() == ".snapshot") << entry.path();
  }
}

}  // namespace
}  // namespace hesper
