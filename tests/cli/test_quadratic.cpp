// hesper quadratic end to end, on golden models, and what it refuses.
#include <ATen/ATen.h>

#include "checkpoint/safetensors.h"
#include "cli/tool.h"
#include "oracle/golden.h"
#include "report/pt_file.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;

class Quadratic : public testing::Test {
 protected:
  void SetUp() override {
    write_npy(folder / "ids.npy", golden.ids);
    copy_model(folder, "opt-pre");
  }
  Outcome quadratic(const Words& more) {
    return run_tool(folder.path, Words{"quadratic", "--model", golden.folder, "--token-ids", "ids.npy"} + more);
  }
  /// The copy with `change` made to every tensor that ends in `ending`.
  void change(const std::string& ending, const std::function<at::Tensor(const at::Tensor&)>& change) {
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    {
      const SafetensorsFile file(golden.folder + "/model.safetensors");
      for (const TensorInfo& info : file.tensors()) {
        const at::Tensor value = file.view(info.name).clone();
        tensors.emplace_back(info.name, info.name.ends_with(ending) ? change(value) : value);
      }
    }
    write_safetensors((folder / "model/model.safetensors").string(), tensors);
  }

  const oracle::Golden golden = oracle::read_golden("opt-pre");
  const TemporaryFolder folder;
};

TEST_F(Quadratic, StepBetweenTwoCheckpoints) {
  change("fc1.weight", [](const at::Tensor& w) { return w + 0.01 * w.sign(); });
  const Outcome outcome = quadratic({"--against", "model", "--precision", "fp64", "--actual", "each", "--out", "out"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  const std::string base = "out/quadratic_model_layer_b3_T10";
  const at::Tensor form = read_pt(folder / (base + ".pt"));
  EXPECT_EQ(form.sizes(), (std::vector<int64_t>{2, 2}));  // fc1 of two blocks
  const auto record = nlohmann::json::parse(read_bytes(folder / (base + ".json")));
  EXPECT_EQ(record["directions"], nlohmann::json::parse(R"(["0.fc1", "1.fc1"])"));
  // ReLU has kinks, but few units cross theirs on an eighth of a small step: prediction and truth agree to 10%.
  const auto step = record["line"][0];
  EXPECT_EQ(step["e"], 0.125);
  EXPECT_NEAR(step["predicted"].get<double>(), step["actual"].get<double>(),
              0.1 * std::abs(step["actual"].get<double>()));
  EXPECT_TRUE(read_bytes(folder / (base + ".bars.png")).starts_with("\x89PNG"));
  EXPECT_TRUE(read_bytes(folder / (base + ".csv")).starts_with("direction,block,weights,norm,first_order,"));
  const SafetensorsFile aux((folder / (base + ".aux.safetensors")).string());
  EXPECT_LT(((aux.view("gauss_newton") + aux.view("residual") - form).norm() / form.norm()).item<double>(), 1e-12);
  // Again: the same configuration is replaced, another one is not.
  EXPECT_EQ(quadratic({"--against", "model", "--precision", "fp64", "--actual", "each", "--out", "out"}).code, 0);
  expect_refusal(quadratic({"--against", "model", "--precision", "fp32", "--actual", "each", "--out", "out"}), 2,
                 "made with precision fp64, now fp32; --overwrite replaces it");
}

TEST_F(Quadratic, Rank) {
  change("fc1.weight", [](const at::Tensor& w) { return w + 0.02 * w.abs(); });  // other norms in each block
  const Outcome outcome = quadratic({"--against", "model", "--precision", "fp64", "--rank", "--out", "out"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  EXPECT_NE(outcome.out.find("Spearman"), std::string::npos);
  const std::string base = "out/quadratic_model_layer_b3_T10";
  for (const char* picture : {".rank.png", ".line.png"})
    EXPECT_TRUE(read_bytes(folder / (base + picture)).starts_with("\x89PNG")) << picture;
  const auto record = nlohmann::json::parse(read_bytes(folder / (base + ".json")));
  EXPECT_TRUE(record["configuration"]["actual_each"].get<bool>()) << "--rank measures each direction";
  const auto& columns = record["rank"]["columns"];
  EXPECT_EQ(columns.size(), 7u);
  // Two directions: every correlation is 1 or -1, and the table has two rows, the costlier one first.
  for (const char* name : {"predicted", "diagonal", "gauss_newton", "fisher", "output_error", "weight_error"})
    EXPECT_EQ(std::abs(record["rank"]["spearman"]["actual"][name]["spearman"].get<double>()), 1) << name;
  EXPECT_FALSE(record["rank"]["spearman"]["predicted"].contains("predicted"));
  const double first = columns["actual"]["values"][0], second = columns["actual"]["values"][1];
  const std::string table = read_bytes(folder / (base + ".rank.csv"));
  EXPECT_TRUE(table.starts_with("direction,actual_place,actual,actual_error,predicted_place,predicted,")) << table;
  EXPECT_NE(table.find(first > second ? "\n0.fc1,1," : "\n1.fc1,1,"), std::string::npos) << table;
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 3);

  expect_refusal(quadratic({"--against", "model", "--rank", "--actual", "line"}), 2,
                 "--rank needs the actual cost of each direction: --actual each, not line");
  expect_refusal(quadratic({"--against", "model", "--rank", "--group", "model"}), 2,
                 "a ranking needs at least 2 directions, 1 is here");
  expect_refusal(quadratic({"--against", golden.folder, "--rank"}), 2, "hold the same weights");
}

TEST_F(Quadratic, Basis) {
  const std::string name = "model.decoder.layers.0.fc1.weight";
  const SafetensorsFile file(golden.folder + "/model.safetensors");
  std::vector<int64_t> shape = file.view(name).sizes().vec();
  shape.insert(shape.begin(), 3);
  write_safetensors((folder / "basis.safetensors").string(), {{name, at::randn(shape)}});
  const Outcome outcome = quadratic({"--basis", "basis.safetensors", "--actual", "none", "--out", "out"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(read_pt(folder / "out/quadratic_basis_basis_b3_T10.pt").size(0), 3);
  write_safetensors((folder / "zero.safetensors").string(), {{name, at::zeros(shape)}});
  expect_refusal(quadratic({"--basis", "zero.safetensors"}), 2, "direction 0 of 3 is zero");
  write_safetensors((folder / "other.safetensors").string(), {{"nothing", at::randn(shape)}});
  expect_refusal(quadratic({"--basis", "other.safetensors"}), 2, "tensor nothing is no parameter of this model");
  write_safetensors((folder / "shape.safetensors").string(), {{name, at::randn({3, 2, 2})}});
  expect_refusal(quadratic({"--basis", "shape.safetensors"}), 2, "has shape [3, 2, 2], expected [3, ");
  write_safetensors((folder / "nan.safetensors").string(), {{name, at::full(shape, NAN)}});
  expect_refusal(quadratic({"--basis", "nan.safetensors"}), 2, "not finite");
}

TEST_F(Quadratic, RefusesWhatIsNoStep) {
  expect_refusal(quadratic({"--against", golden.folder}), 2, "hold the same weights");
  expect_refusal(quadratic({"--against", golden_folder("llama-gqa")}), 2, "in the first checkpoint");
  expect_refusal(quadratic({"--against", "nowhere"}), 2, "nowhere: no such folder");
  expect_refusal(quadratic({}), 2, "one of --against FOLDER and --basis FILE.safetensors is needed");
  expect_refusal(quadratic({"--against", golden_folder("opt-gelu")}), 2, "heads 4 in the first, 2 in the second");
  change("fc1.weight", [](const at::Tensor& w) { return w + 0.01; });
  expect_refusal(quadratic({"--against", "model", "--memory-limit", "1MiB"}), 1, "1 MiB are allowed");
  change("fc1.weight", [](const at::Tensor& w) { return at::full_like(w, NAN); });
  expect_refusal(quadratic({"--against", "model"}), 1, "not finite");
}

}  // namespace
}  // namespace hesper
