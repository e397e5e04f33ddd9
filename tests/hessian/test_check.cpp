// `check` on golden models and on real ones: every comparison holds, a wrong derivative is found, and the exported
// script agrees when Python runs it.
#include "hessian/check.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "checkpoint/safetensors.h"
#include "hessian/export_script.h"
#include "hessian/finite_differences.h"

namespace hesper::test {
namespace {

std::string golden(const std::string& name) { return std::string(HESPER_SOURCE_DIR) + "/tests/golden/" + name; }

Windows windows_of(const at::Tensor& ids) {
  std::vector<int64_t> index(ids.size(0));
  for (int64_t i = 0; i < ids.size(0); ++i) index[i] = i;
  return {ids, ids, index, ids.size(0)};
}
Windows golden_windows(const std::string& name) {
  const SafetensorsFile record(golden(name) + "/golden.safetensors");
  Windows windows = windows_of(record.view("ids").clone());
  if (record.has("labels")) windows.labels = record.view("labels").clone();
  return windows;
}
/// Ids that no tokenizer made: enough to hold derivatives against each other.
Windows random_windows(const Model& model, int64_t b, int64_t length) {
  at::manual_seed(3);
  return windows_of(at::randint(3, model.config().vocab, {b, length}, at::kLong));
}
Selection select(const Model& model, const std::vector<std::pair<std::string, int64_t>>& first) {
  Selection selection;
  for (const auto& [name, m] : first) {
    const int p = model.weights.index(name);
    EXPECT_GE(p, 0) << name;
    selection.add(p, model.weights.specs[p].shape, at::arange(m));
  }
  return selection;
}
const CheckRow* find(const CheckReport& report, const std::string& what, const std::string& against) {
  for (const CheckRow& row : report.rows)
    if (row.what.find(what) != std::string::npos && row.against.find(against) != std::string::npos) return &row;
  return nullptr;
}

void expect_all_hold(const Model& model, const Selection& selection, const Windows& windows, CheckOptions options) {
  const CheckReport report = run_check(model, selection, windows, options);
  EXPECT_TRUE(report.passed()) << to_table(report);
  // The engine's promise in fp64 (1e-10), not just the bound of the row.
  for (const char* what : {"loss", "gradient", "H V, two-pass fp64"}) {
    const CheckRow* row = find(report, what, "autograd fp64");
    ASSERT_TRUE(row) << what;
    EXPECT_LE(row->error, 1e-10) << what;
    EXPECT_LE(row->bound, 1e-9) << what << ": a bound that explains anything says nothing";
  }
  ASSERT_TRUE(find(report, "Gram fp64", "two-pass fp64"));
  EXPECT_LE(find(report, "Gram fp64", "two-pass fp64")->error, 1e-10);
  bool judged = false;
  for (const CheckRow& row : report.rows)
    judged = judged || (row.judged && row.bound < 1e-3 && row.against.find("central differences of the gradient") == 0);
  EXPECT_TRUE(judged) << "no step of the differences says anything\n" << to_table(report);
}

class Check : public testing::TestWithParam<std::string> {};
TEST_P(Check, GoldenModelHolds) {
  const Model model = load_model(golden(GetParam()));
  const auto first = std::find_if(model.weights.specs.begin(), model.weights.specs.end(), [](const auto& spec) {
    const bool queries = spec.layer.ends_with("q_proj") || spec.layer.ends_with("qkv_proj") ||
                         spec.layer.ends_with("c_attn") || spec.layer.ends_with("query_key_value");
    return spec.block == 0 && queries && spec.linear_weight;
  });
  ASSERT_NE(first, model.weights.specs.end());
  const std::string q = first->name;
  const Windows windows = golden_windows(GetParam());
  expect_all_hold(model, select(model, {{q, 40}}), windows, {.windows = windows.ids.size(0)});
}
INSTANTIATE_TEST_SUITE_P(Golden, Check,
                         testing::Values("opt-pre", "opt-gelu", "opt-post-proj", "llama-gqa", "llama-bias", "mistral",
                                         "mistral-window", "qwen3", "gpt2", "neox", "phi3", "gemma2", "gemma3",
                                         "llama4"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(CheckReal, OptTiny) {
  const std::string folder = std::string(HESPER_SHARED_DIR) + "/data/models/opt-tiny";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "needs the model " << folder;
  const Model model = load_model(folder);
  const std::string block = "model.decoder.layers.0.";
  expect_all_hold(model, select(model, {{block + "self_attn.q_proj.weight", 64}, {block + "fc1.bias", 8}}),
                  random_windows(model, 1, 48), {});
}
TEST(CheckReal, Stories260K) {
  const std::string folder = std::string(HESPER_SHARED_DIR) + "/data/models/stories260K";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "needs the model " << folder;
  const Model model = load_model(folder);
  // The embedding is the head as well: its Hessian counts both uses.
  expect_all_hold(model, select(model, {{"model.embed_tokens.weight", 512 * 64}}), random_windows(model, 1, 64), {});
}

TEST(CheckReport, WholeParametersOneWeightAndOneDirection) {
  const Model model = load_model(golden("llama-gqa"));
  const Windows windows = golden_windows("llama-gqa");
  expect_all_hold(model, select(model, {{"model.norm.weight", 1}}), windows, {});
  expect_all_hold(model, select(model, {{"model.norm.weight", 16}, {"lm_head.weight", 44 * 16}}), windows,
                  {.directions = 1, .differenced = 1});
}

TEST(CheckReport, ReluModelsAreToldOfTheirKinks) {
  const Model model = load_model(golden("opt-pre"));
  const Windows windows = golden_windows("opt-pre");
  const Selection selection = select(model, {{"model.decoder.layers.0.fc1.weight", 400}});
  const CheckReport report = run_check(model, selection, windows, {.windows = 3, .steps = {10, 1, 1e-7, 1e-8}});
  EXPECT_TRUE(report.passed()) << to_table(report);
  // A step of 10 carries inputs across zero: shown, not judged. One of 1e-7 does not.
  EXPECT_FALSE(find(report, "H v", "central differences of the gradient, h = 1e+01")->judged);
  EXPECT_TRUE(find(report, "H v", "central differences of the gradient, h = 1e-07")->judged);
  EXPECT_NE(to_table(report).find("the only ones to be trusted: h = 1e-07, 1e-08."), std::string::npos)
      << to_table(report);
  const CheckReport smooth =
      run_check(load_model(golden("llama-gqa")), select(load_model(golden("llama-gqa")), {{"model.norm.weight", 16}}),
                golden_windows("llama-gqa"), {});
  EXPECT_EQ(to_table(smooth).find("ReLU"), std::string::npos);
}

TEST(CheckReport, RoutedModelsAreToldHowNearATieIs) {
  const Model model = load_model(golden("llama4"));
  const Windows windows = golden_windows("llama4");
  const Selection selection = select(model, {{"model.layers.0.feed_forward.router.weight", 48},
                                             {"model.layers.1.feed_forward.experts.1.up_proj.weight", 30}});
  const CheckReport report = run_check(model, selection, windows, {.windows = 2, .steps = {10, 1e-4, 1e-5}});
  EXPECT_TRUE(report.passed()) << to_table(report);
  const std::string table = to_table(report);
  EXPECT_NE(table.find("at the closest of 44 choices"), std::string::npos) << table;  // 2 windows of 11, 2 mixtures
  // A step of 10 sends tokens to other experts: shown, not judged.
  EXPECT_FALSE(find(report, "H v", "central differences of the gradient, h = 1e+01")->judged);
  EXPECT_TRUE(find(report, "H v", "central differences of the gradient, h = 1e-05")->judged);
  EXPECT_NE(table.find("tokens change experts"), std::string::npos) << table;
  const Model dense = load_model(golden("llama-gqa"));
  const CheckReport other =
      run_check(dense, select(dense, {{"model.norm.weight", 4}}), golden_windows("llama-gqa"), {});
  EXPECT_EQ(to_table(other).find("router"), std::string::npos);
}

TEST(CheckReport, FailedRowsFailTheReport) {
  CheckReport report;
  report.rows = {{"H V", "autograd", 1e-3, 1e-9, "16 x noise", false, true}};
  EXPECT_FALSE(report.passed());
  EXPECT_NE(to_table(report).find("FAILED"), std::string::npos);
  EXPECT_NE(to_table(report).find("0 of 1 comparisons hold"), std::string::npos);
  EXPECT_EQ(to_json(report)["passed"], false);
  report.rows[0].judged = false;
  EXPECT_TRUE(report.passed());
  EXPECT_TRUE(to_json(report)["rows"][0]["passed"].is_null());
}

TEST(CheckReport, TableAndJsonNameEverything) {
  const Model model = load_model(golden("llama-gqa"));
  const CheckReport report = run_check(model, select(model, {{"model.layers.1.mlp.gate_proj.weight", 20}}),
                                       golden_windows("llama-gqa"), {.data_name = "golden ids"});
  const std::string table = to_table(report);
  for (const std::string& text :
       {std::string("llama-gqa"), model.checkpoint.sha256(), std::string("golden ids"), std::string("1 of 10 tokens"),
        std::string("model.layers.1.mlp.gate_proj.weight (20 of 448 entries)"), std::string("fp32 tangents, fp64"),
        std::string("hesper " HESPER_VERSION)})
    EXPECT_NE(table.find(text), std::string::npos) << text << "\n" << table;
  const nlohmann::json json = to_json(report);
  EXPECT_EQ(json["rows"].size(), report.rows.size());
  EXPECT_EQ(json["header"]["n"], "20");
  EXPECT_EQ(json["passed"], true);
  EXPECT_FALSE(json.dump().empty());
}

TEST(CheckReport, AutogradStaysBelowTheMemoryLimit) {
  const Model model = load_model(golden("llama-gqa"));
  const Selection selection = select(model, {{"model.norm.weight", 16}});
  const CheckReport report = run_check(model, selection, golden_windows("llama-gqa"), {.memory_limit = 1});
  EXPECT_TRUE(report.passed());
  for (const CheckRow& row : report.rows) EXPECT_EQ((row.what + row.against).find("autograd"), std::string::npos);
  EXPECT_NE(to_table(report).find("Autograd was left out"), std::string::npos);
}

TEST(CheckReport, RefusesWhatIsOutOfRange) {
  const Model model = load_model(golden("llama-gqa"));
  const Selection selection = select(model, {{"model.norm.weight", 16}});
  const Windows windows = golden_windows("llama-gqa");
  EXPECT_THROW(run_check(model, selection, windows, {.windows = 4}), std::invalid_argument);
  EXPECT_THROW(run_check(model, selection, windows, {.directions = 5}), std::invalid_argument);
  EXPECT_THROW(run_check(model, {}, windows, {}), std::invalid_argument);
  EXPECT_THROW(run_check(model, selection, windows, {.precision = at::kHalf}), std::invalid_argument);
  EXPECT_THROW(check_script(model, selection, windows, {.entries = 0}), std::invalid_argument);
  EXPECT_THROW(check_script(model, selection, windows, {.windows = 0}), std::invalid_argument);
}

// ---- the Python script

class Script : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("hesper_script_" + std::to_string(::getpid()) +
                                                        testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  struct Outcome {
    int status;
    std::string output;
  };
  Outcome run(const std::string& script) const {
    std::ofstream(folder_ / "check.py") << script;
    const std::string log = (folder_ / "log").string();
    const int status = std::system(
        fmt::format("'{}' '{}' > '{}' 2>&1", std::getenv("HESPER_ORACLE_PYTHON"), (folder_ / "check.py").string(), log)
            .c_str());
    std::stringstream text;
    text << std::ifstream(log).rdbuf();
    return {WEXITSTATUS(status), text.str()};
  }
  std::filesystem::path folder_;
};

#define NEED_PYTHON()                       \
  if (!std::getenv("HESPER_ORACLE_PYTHON")) \
  GTEST_SKIP() << "needs a Python with torch and transformers, named by the environment variable HESPER_ORACLE_PYTHON"

TEST_F(Script, AgreesOnOpt) {
  NEED_PYTHON();
  const Model model = load_model(golden("opt-post-proj"));
  const Outcome outcome = run(check_script(
      model,
      select(model, {{"model.decoder.layers.0.self_attn.q_proj.weight", 60}, {"model.decoder.layers.1.fc2.bias", 7}}),
      golden_windows("opt-post-proj"), {.windows = 2}));
  EXPECT_EQ(outcome.status, 0) << outcome.output;
  EXPECT_NE(outcome.output.find("agrees"), std::string::npos) << outcome.output;
}
TEST_F(Script, AgreesOnLlamaWithScaledRotary) {
  NEED_PYTHON();
  const Model model = load_model(golden("llama-llama3rope"));
  const Outcome outcome = run(check_script(model, select(model, {{"model.layers.0.self_attn.k_proj.weight", 100}}),
                                           golden_windows("llama-llama3rope"), {.windows = 2}));
  EXPECT_EQ(outcome.status, 0) << outcome.output;
}
TEST_F(Script, AgreesWithLabelsAndATiedHead) {
  NEED_PYTHON();
  const Model model = load_model(golden("opt-gelu"));
  const Outcome outcome = run(check_script(model, select(model, {{"model.decoder.embed_tokens.weight", 48 * 16}}),
                                           golden_windows("opt-gelu"), {.windows = 3, .entries = 8}));
  EXPECT_EQ(outcome.status, 0) << outcome.output;
}
// One model of each family whose code in transformers is its own.
TEST_F(Script, AgreesOnTheOtherFamilies) {
  NEED_PYTHON();
  for (const char* name : {"gpt2-options", "neox", "gemma", "gemma2", "gemma3", "mistral-window", "qwen2-yarn", "qwen3",
                           "phi3-longrope", "llama4-interleaved"}) {
    SCOPED_TRACE(name);
    const Model model = load_model(golden(name));
    const auto& specs = model.weights.specs;
    const auto linear = std::find_if(specs.begin(), specs.end(), [](const ParameterSpec& spec) {
      return spec.block == 1 && spec.linear_weight && !spec.piece;
    });
    ASSERT_NE(linear, specs.end());
    const Outcome outcome =
        run(check_script(model, select(model, {{linear->name, 40}}), golden_windows(name), {.windows = 2}));
    EXPECT_EQ(outcome.status, 0) << outcome.output;
  }
}
TEST_F(Script, FindsAWrongNumber) {
  NEED_PYTHON();
  const Model model = load_model(golden("llama-gqa"));
  std::string script = check_script(model, select(model, {{"model.norm.weight", 16}}), golden_windows("llama-gqa"));
  const size_t place = script.find("\nLOSS = ");
  ASSERT_NE(place, std::string::npos);
  script.insert(place + 8, "1.00001 * ");
  const Outcome outcome = run(script);
  EXPECT_EQ(outcome.status, 1) << outcome.output;
  EXPECT_NE(outcome.output.find("DISAGREES"), std::string::npos) << outcome.output;
}
TEST(ScriptText, IsShortAndKeepsStrangePathsInsideTheirLiteral) {
  const std::filesystem::path strange =
      std::filesystem::temp_directory_path() / ("hesper \"quoted\"\n" + std::to_string(::getpid()));
  std::filesystem::create_directories(strange);
  for (const char* file : {"config.json", "model.safetensors"})
    std::filesystem::copy_file(golden("llama-gqa") + "/" + file, strange / file,
                               std::filesystem::copy_options::overwrite_existing);
  const Model model = load_model(strange.string());
  const std::string script =
      check_script(model, select(model, {{"model.norm.weight", 16}}), golden_windows("llama-gqa"));
  std::filesystem::remove_all(strange);
  EXPECT_NE(script.find("hesper \\\"quoted\\\"\\n"), std::string::npos);
  EXPECT_LT(std::count(script.begin(), script.end(), '\n'), 140);
}

}  // namespace
}  // namespace hesper::test
