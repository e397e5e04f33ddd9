// hesper exact, compare and plot end to end, on golden models.
#include <ATen/ATen.h>
#include <algorithm>

#include "checkpoint/safetensors.h"
#include "cli/tool.h"
#include "oracle/golden.h"
#include "report/compare.h"
#include "report/pt_file.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;

// fp64 against transformers: the tolerance of tests/oracle/test_golden.cpp.
constexpr double kTolerance = 1e-12;

class Exact : public testing::Test {
 protected:
  void SetUp() override { write_npy(folder / "ids.npy", golden.ids); }
  // On the golden windows and the first selection, q_proj of block 0, t = 8.
  Outcome exact(const Words& more) {
    return run_tool(folder.path, Words{"exact", "--model", golden.folder, "--token-ids", "ids.npy", "--t", "8"} + more);
  }
  static double error(const at::Tensor& a, const at::Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }
  nlohmann::json json(const std::string& file) { return nlohmann::json::parse(read_bytes(folder / file)); }

  const oracle::Golden golden = oracle::read_golden("opt-pre");
  const TemporaryFolder folder;
  const std::string name = "hessian_self_attn.q_proj_block0_t8_b3_seed0_T10";
};

TEST_F(Exact, EndToEnd) {
  const Outcome outcome = exact({"--precision", "fp64"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  const std::string base = "data/opt-pre/" + name;
  const at::Tensor h = read_pt(folder / (base + ".pt"));
  ASSERT_EQ(h.scalar_type(), at::kDouble);
  EXPECT_LE(error(h, golden.selections[0].hessian), kTolerance);

  const SafetensorsFile aux((folder / (base + ".aux.safetensors")).string());
  EXPECT_LE(error(aux.view("gradient"), golden.selections[0].gradient), kTolerance);
  EXPECT_LE(error(aux.view("losses"), golden.window_losses), kTolerance);
  EXPECT_TRUE(at::equal(aux.view("rows").select(1, 2), at::arange(8)));
  const auto& weights = golden.weights.at("model.decoder.layers.0.self_attn.q_proj.weight");
  EXPECT_TRUE(at::equal(aux.view("weights"), at::tensor(std::vector<double>(weights.begin(), weights.begin() + 8))));
  EXPECT_FALSE(aux.has("standard_error"));

  EXPECT_TRUE(read_bytes(folder / (base + ".png")).starts_with("\x89PNG"));
  EXPECT_TRUE(read_bytes(folder / (base + ".pdf")).starts_with("%PDF"));

  const auto record = json(base + ".json");
  EXPECT_EQ(record["version"], HESPER_VERSION);
  EXPECT_EQ(record["command_line"][1], "exact");
  EXPECT_EQ(record["model"]["name"], "opt-pre");
  EXPECT_EQ(record["model"]["sha256"].get<std::string>().size(), 64u);
  EXPECT_EQ(record["data"]["windows"], 3);
  EXPECT_EQ(record["data"]["seqlen"], 10);
  EXPECT_EQ(record["selection"][0]["tensor"], "model.decoder.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(record["selection"][0]["ranges"], nlohmann::json::parse("[[0, 8]]"));
  EXPECT_EQ(record["configuration"]["precision"], "fp64");
  EXPECT_NEAR(record["mean_window_loss"].get<double>(), golden.loss, kTolerance);
  EXPECT_EQ(record["products"], 24);
  EXPECT_GT(record["seconds"].get<double>(), 0);
  EXPECT_GT(record["errors"]["data"].get<double>(), 0);
  EXPECT_EQ(record["spectrum"]["n"], 8);
  EXPECT_NEAR(record["gradient_norm"].get<double>(), golden.selections[0].gradient.norm().item<double>(), kTolerance);
  // The summary says what was written and how far it can be trusted.
  EXPECT_NE(outcome.out.find("exact for these windows only"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find(fmt::format("{:<14}{}", "wrote", base)), std::string::npos) << outcome.out;
}

// The default precision: fp32 tangents and file, its own error measured. fp32 rounds to 6e-8; some hundred sums.
TEST_F(Exact, SinglePrecisionMeasuresItsError) {
  const Outcome outcome = exact({"--out", "out", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const at::Tensor h = read_pt(folder / ("out/" + name + ".pt"));
  ASSERT_EQ(h.scalar_type(), at::kFloat);
  EXPECT_LE(error(h, golden.selections[0].hessian), 1e-5);
  const auto result = last_event(outcome, "result");
  EXPECT_EQ(result["file"], "out/" + name);
  EXPECT_GT(result["precision_error"].get<double>(), 0);
  EXPECT_LE(result["precision_error"].get<double>(), 1e-5);
  EXPECT_EQ(json("out/" + name + ".json")["errors"]["precision"], result["precision_error"]);
}

// An accepted error picks the precision by a trial: fp32 is within 1e-3 and not within 1e-9.
TEST_F(Exact, PrecisionByAcceptedError) {
  for (const auto& [accepted, chosen] : {std::pair{"1e-3", "fp32"}, {"1e-9", "fp64"}}) {
    const Outcome outcome = exact({"--precision", accepted, "--overwrite"});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_NE(outcome.out.find("precision: fp32 "), std::string::npos) << outcome.out;
    EXPECT_EQ(json("data/opt-pre/" + name + ".json")["configuration"]["precision"], chosen);
  }
}

TEST_F(Exact, ReferenceFlagNamesSayTheSame) {
  ASSERT_EQ(exact({"--out", "a"}).code, 0);
  ASSERT_EQ(exact({"--out=b", "--layer_name", "q_proj", "--block_index", "0", "--model_input_bs=2"}).code, 0);
  const at::Tensor a = read_pt(folder / ("a/" + name + ".pt")), b = read_pt(folder / ("b/" + name + ".pt"));
  EXPECT_LE(error(a, b), 1e-5);  // other batches: fp32 rounding
  EXPECT_EQ(json("a/" + name + ".json")["configuration"], json("b/" + name + ".json")["configuration"]);

  const Outcome several = exact({"--out", "c", "--num_layers", "2", "--num_blocks", "2"});
  ASSERT_EQ(several.code, 0) << several.err;
  const at::Tensor c = read_pt(folder / "c/hessian_2_layers_2_blocks_t8_b3_seed0_T10.pt");
  EXPECT_EQ(c.size(0), 32);
}

TEST_F(Exact, CurvaturesAndPerplexity) {
  const Outcome outcome = exact({"--precision", "fp64", "--curvature", "all", "--out", "all"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const at::Tensor h = read_pt(folder / ("all/" + name + ".pt"));
  const at::Tensor g = read_pt(folder / ("all/" + name + "_gauss-newton.pt"));
  const at::Tensor r = read_pt(folder / ("all/" + name + "_residual.pt"));
  EXPECT_LE(error(g, golden.selections[0].gauss_newton), kTolerance);
  EXPECT_LE(((g + r) - h).norm().item<double>(), kTolerance * h.norm().item<double>());

  ASSERT_EQ(exact({"--precision", "fp64", "--objective", "perplexity", "--out", "p"}).code, 0);
  const at::Tensor p = read_pt(folder / ("p/" + name + "_perplexity.pt"));
  const at::Tensor& gradient = golden.selections[0].gradient;
  EXPECT_LE(error(p, std::exp(golden.loss) * (golden.selections[0].hessian + gradient.outer(gradient))), kTolerance);
}

TEST_F(Exact, EnginesAndPassesAgree) {
  for (const Words& way : {Words{"--pass", "two-pass", "--directions", "3"}, Words{"--engine", "autograd"}}) {
    ASSERT_EQ(exact(Words{"--precision", "fp64", "--out", "w", "--overwrite"} + way).code, 0);
    EXPECT_LE(error(read_pt(folder / ("w/" + name + ".pt")), golden.selections[0].hessian), kTolerance) << way[1];
    EXPECT_EQ(json("w/" + name + ".json").contains("plan"), way[1] == "two-pass") << "autograd follows no plan";
  }
}

TEST_F(Exact, EachLayerIsOneResult) {
  const Outcome outcome = exact({"--layer", "fc1,fc2", "--each-layer", "--out", "each"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  for (const char* layer : {"fc1", "fc2"}) {
    const std::string file = std::string("each/hessian_") + layer + "_block0_t8_b3_seed0_T10.pt";
    EXPECT_EQ(read_pt(folder / file).sizes(), at::IntArrayRef({8, 8})) << file;
  }
}

TEST_F(Exact, SelectionsBesideTheFirstWeights) {
  write_bytes(folder / "flat.txt", "17, 3\n40");
  const Outcome outcome =
      run_tool(folder.path, {"exact", "--model", golden.folder, "--token-ids", "ids.npy", "--indices", "flat.txt",
                             "--layer", "q_proj.bias,model.decoder.final_layer_norm.weight", "--out", "s"});
  expect_refusal(outcome, 2, "no such layer");
  const Outcome mixed =
      run_tool(folder.path, {"exact", "--model", golden.folder, "--token-ids", "ids.npy", "--cols", "3:9", "--layer",
                             "self_attn.q_proj.bias,model.decoder.final_layer_norm.weight", "--out", "s", "--json"});
  ASSERT_EQ(mixed.code, 0) << mixed.err;
  const std::string file = last_event(mixed, "result")["file"];
  EXPECT_NE(file.find("_n12_"), std::string::npos) << file;
  EXPECT_NE(file.find("_sel"), std::string::npos) << file;
  const SafetensorsFile aux((folder / (file + ".aux.safetensors")).string());
  EXPECT_EQ(aux.metadata().at("tensors"),
            R"(["model.decoder.final_layer_norm.weight","model.decoder.layers.0.self_attn.q_proj.bias"])");
  EXPECT_EQ(aux.view("rows")[7][0].item<int64_t>(), 1);
  EXPECT_EQ(aux.view("rows")[7][2].item<int64_t>(), 4);

  ASSERT_EQ(run_tool(folder.path, {"exact", "--model", golden.folder, "--token-ids", "ids.npy", "--indices", "flat.txt",
                                   "--out", "i"})
                .code,
            0);
  int results = 0;
  for (const auto& entry : fs::directory_iterator(folder / "i")) results += entry.path().extension() == ".pt";
  EXPECT_EQ(results, 1);
}

TEST_F(Exact, AnotherConfigurationIsNotOverwritten) {
  ASSERT_EQ(exact({"--out", "o"}).code, 0);
  const std::string before = read_bytes(folder / ("o/" + name + ".pt"));
  expect_refusal(exact({"--out", "o", "--precision", "fp64"}), 2, "made with precision fp32, now fp64");
  EXPECT_EQ(read_bytes(folder / ("o/" + name + ".pt")), before);
  EXPECT_EQ(exact({"--out", "o"}).code, 0);  // the same once more
  EXPECT_EQ(exact({"--out", "o", "--precision", "fp64", "--overwrite"}).code, 0);
  EXPECT_EQ(read_pt(folder / ("o/" + name + ".pt")).scalar_type(), at::kDouble);
  write_bytes(folder / ("o/" + name + ".json"), "[1, 2");
  expect_refusal(exact({"--out", "o"}), 2, "not the record of a result");
}

TEST_F(Exact, FullErrorsCompareInTheirUnits) {
  ASSERT_EQ(exact({"--precision", "fp64", "--errors", "full", "--out", "f"}).code, 0);
  ASSERT_EQ(exact({"--precision", "fp64", "--windows", "0:2", "--out", "g"}).code, 0);
  const std::string a = "g/hessian_self_attn.q_proj_block0_t8_b2_seed0_T10.pt", b = "f/" + name + ".pt";
  const SafetensorsFile aux((folder / ("f/" + name + ".aux.safetensors")).string());
  const Comparison expected = compare(read_pt(folder / a), read_pt(folder / b), aux.view("standard_error"));
  const Outcome outcome = run_tool(folder.path, {"compare", a, b, "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  auto event = last_event(outcome, "result");
  event.erase("event");
  EXPECT_EQ(event, to_json(expected));
  const Outcome text = run_tool(folder.path, {"compare", a, b});
  for (const char* part : {"|A - B| / |B|", "cosine", "Spearman", "standard errors"}) {
    EXPECT_NE(text.out.find(part), std::string::npos) << text.out;
  }
  write_npy(folder / "short.npy", at::ones({2, 2}));
  expect_refusal(run_tool(folder.path, {"compare", a, "short.npy"}), 2, "(8, 8)");
  expect_refusal(run_tool(folder.path, {"compare", a, "missing.pt"}), 1, "missing.pt");
  expect_refusal(exact({"--errors", "full", "--objective", "perplexity"}), 2, "--errors full");
}

TEST_F(Exact, PlotDrawsASavedResult) {
  ASSERT_EQ(exact({"--out", "o", "--layer", "q_proj,fc1"}).code, 0);
  std::string pt;
  for (const auto& entry : fs::directory_iterator(folder / "o")) {
    if (entry.path().extension() == ".pt") pt = entry.path().string();
  }
  ASSERT_NE(pt, "");
  ASSERT_EQ(run_tool(folder.path, {"plot", pt, "--out", "again"}).code, 0);
  EXPECT_TRUE(read_bytes(folder / "again.png").starts_with("\x89PNG"));
  EXPECT_TRUE(read_bytes(folder / "again.pdf").starts_with("%PDF"));
  ASSERT_EQ(run_tool(folder.path, {"plot", pt, "--out", "one.png", "--title", "One"}).code, 0);
  EXPECT_TRUE(fs::exists(folder / "one.png"));
  EXPECT_FALSE(fs::exists(folder / "one.pdf"));
  write_bytes(folder / "bad.pt", "no zip");
  expect_refusal(run_tool(folder.path, {"plot", "bad.pt"}), 1, "bad.pt");
}

// One direction at a time over 3,712 weights takes long; the signal comes once the plan has been said.
TEST_F(Exact, InterruptedLeavesASnapshotAlone) {
  const std::string script =
      "rm -f .out; \"$@\" >.out 2>.err & tool=$!; for i in $(seq 600); do grep -q two-pass .out && break; sleep 0.1; "
      "done; "
      "kill -$SIGNAL $tool; wait $tool";
  for (const char* signal : {"INT", "TERM"}) {
    const Outcome outcome =
        run_tool(folder.path,
                 {"exact", "--model", golden.folder, "--token-ids", "ids.npy", "--layer", "all", "--block", "all",
                  "--rows", "0:16", "--pass", "two-pass", "--directions", "1", "--out", "o"},
                 fmt::format("SIGNAL={} sh -c {} sh", signal, quoted(script)));
    expect_refusal(outcome, 130, "interrupted, snapshot saved: o/");
    for (const auto& entry : fs::directory_iterator(folder / "o")) EXPECT_EQ(entry.path().extension(), ".snapshot");
  }
}

TEST_F(Exact, PlanPrintsItsPartsAndComputesNothing) {
  const Outcome outcome =
      run_tool(folder.path, {"plan", "--model", golden.folder, "--t", "8", "--b", "3", "--seqlen", "10"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  for (const char* part : {"weights", "tape", "tangents", "cuts", "attention", "result", "total", "pass", "directions",
                           "allowed", "arithmetic", "time"}) {
    EXPECT_NE(outcome.out.find(part), std::string::npos) << part << "\n" << outcome.out;
  }
  const auto event =
      last_event(run_tool(folder.path, {"plan", "--model", golden.folder, "--token-ids", "ids.npy", "--t", "8",
                                        "--pass", "two-pass", "--directions", "2", "--json"}),
                 "plan");
  EXPECT_EQ(event["pass"], "two-pass");
  EXPECT_EQ(event["directions"], 2);
  EXPECT_EQ(event["units"], 12);  // 3 windows, 4 chunks
  EXPECT_EQ(event["n"], 8);
  const auto bytes = [&](const char* part) { return event["memory"][part].get<int64_t>(); };
  const int64_t tangents = bytes("tape") + bytes("tangents") + std::max(bytes("cuts"), bytes("attention"));
  EXPECT_EQ(bytes("total"),
            bytes("library") + bytes("weights") + bytes("result") + std::max(bytes("primal"), tangents));
  expect_refusal(exact({"--memory-limit", "1KiB"}), 1, "memory");
  EXPECT_FALSE(fs::exists(folder / "data"));
}

}  // namespace
}  // namespace hesper
