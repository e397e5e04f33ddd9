// Exit codes, wrong usage and bad input: one clear line each.
#include <sys/stat.h>

#include "checkpoint/safetensors.h"
#include "cli/tool.h"
#include "run/device_memory.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;

class Usage : public testing::Test {
 protected:
  void SetUp() override {
    write_npy(folder / "ids.npy", at::arange(60).remainder(40).view({5, 12}));
    write_bytes(folder / "text.txt", "Some text.\n");
  }
  Outcome tool(const Words& words) { return run_tool(folder.path, words); }
  Outcome exact(const std::string& model, const Words& more = {}) {
    return tool(Words{"exact", "--model", model, "--token-ids", "ids.npy", "--out", "out"} + more);
  }
  // Exit code, one line, and nothing left behind.
  void refused(const Outcome& outcome, int code, const std::string& part) {
    expect_refusal(outcome, code, part);
    EXPECT_FALSE(fs::exists(folder / "out")) << outcome.err;
  }
  void edit_config(const fs::path& model, const nlohmann::json& patch) {
    auto config = nlohmann::json::parse(read_bytes(model / "config.json"));
    config.merge_patch(patch);
    write_bytes(model / "config.json", config.dump());
  }
  // Model's tensors, one of them replaced.
  void replace_tensor(const fs::path& model, const std::string& name, const at::Tensor& value) {
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    {
      const SafetensorsFile file((model / "model.safetensors").string());
      for (const auto& info : file.tensors()) {
        tensors.emplace_back(info.name, info.name == name ? value : file.view(info.name).clone());
      }
    }
    write_safetensors((model / "model.safetensors").string(), tensors, {{"format", "pt"}});
  }

  const TemporaryFolder folder;
  const std::string model = golden_folder("opt-pre");
  const std::string query = "model.decoder.layers.0.self_attn.q_proj.weight";
};

TEST_F(Usage, HelpAndVersion) {
  const Outcome help = tool({"--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_EQ(help.err, "");
  for (const char* command : {"exact", "sweep", "tokenize", "perplexity", "check", "plan", "plot", "compare", "info"}) {
    EXPECT_NE(help.out.find(command), std::string::npos) << command;
    const Outcome own = tool({command, "--help"});
    EXPECT_EQ(own.code, 0) << command;
    EXPECT_NE(own.out.find("--json"), std::string::npos) << command;
  }
  EXPECT_NE(tool({"--version"}).out.find(HESPER_VERSION), std::string::npos);
}

TEST_F(Usage, InfoNamesTheBuild) {
  const auto info = last_event(tool({"info", "--json"}), "info");
  EXPECT_EQ(info["version"], HESPER_VERSION);
  EXPECT_GE(info["threads"].get<int>(), 1);
  EXPECT_NE(tool({"info"}).out.find("LibTorch"), std::string::npos);
}

TEST_F(Usage, WrongWords) {
  refused(tool({}), 2, "no command");
  refused(tool({"exakt"}), 2, "exakt: no such command");
  refused(tool({"merge", "a", "b"}), 2, "--out");
  refused(tool({"exact"}), 2, "--model");
  refused(exact(model, {"--colour", "red"}), 2, "--colour: not expected here; see hesper exact --help");
  refused(exact(model, {"--t", "many"}), 2, "--t");
  refused(exact(model, {"--t"}), 2, "--t");
  refused(exact(model, {"--parts", "3/2"}), 2, "--parts 3/2: i/N expected");
  refused(exact(model, {"--snapshot-every", "soon"}), 2, "--snapshot-every soon: a time such as");
  refused(exact(model, {"--vhp_samples", "3"}), 2, "--vhp-samples: not expected here");
  refused(exact(model, {"--precision", "bf16x3"}), 2, "--precision bf16x3: on a GPU only");
  refused(exact(model, {"--precision", "int8"}), 2,
          "fp64, fp32, bf16x3, tf32, bf16, auto or an error between 0 and 1 expected");
  refused(exact(model, {"--objective", "accuracy"}), 2, "--objective");
  refused(exact(model, {"--memory-limit", "much"}), 2, "--memory-limit much");
  refused(exact(model, {"--threads", "0"}), 2, "--threads");
  refused(exact(model, {"--device", "tpu"}), 2, "--device tpu");
  refused(exact(model, {"--engine", "autograd", "--pass", "gram"}), 2, "--pass gram");
  refused(exact(model, {"--pass", "gram", "--directions", "2"}), 2, "--directions is 2");
  refused(exact(model, {"--block", "0", "--num-blocks", "1"}), 2, "--num-blocks");
  if (!gpu_count()) refused(exact(model, {"--device", "cuda"}), 2, "this build has no CUDA");
}

TEST_F(Usage, SelectionsOutOfRange) {
  refused(exact(model, {"--t", "17"}), 2, "--t 17: row 0 of " + query + " has only 16 weights");
  refused(exact(model, {"--block", "2"}), 2, "--block 2: the model has 2 blocks");
  refused(exact(model, {"--num_blocks", "3"}), 2, "--num-blocks 3: the model has only 2 blocks");
  refused(exact(model, {"--num_layers", "7"}), 2, "--num-layers 7: a block has only 6");
  refused(exact(model, {"--layer", "mlp.up_proj"}), 2, "no such layer; a block has self_attn.k_proj");
  refused(exact(model, {"--rows", "0:17"}), 2, "has only 16 rows");
  refused(exact(model, {"--rows", "3"}), 2, "a range A:B expected");
  write_bytes(folder / "flat.txt", "3 999");
  refused(exact(model, {"--indices", "flat.txt"}), 2, "999 is outside " + query + ", which has 256");
  write_bytes(folder / "flat.txt", "3 x");
  refused(exact(model, {"--indices", "flat.txt"}), 2, "entry 1 is not a whole number");
  refused(exact(model, {"--indices", "none.npy"}), 1, "none.npy");
}

TEST_F(Usage, DataOutOfRange) {
  refused(exact(model, {"--b", "6"}), 2, "5 windows");
  refused(exact(model, {"--seqlen", "13"}), 2, "13");
  refused(exact(model, {"--windows", "3:9"}), 2, "only 5 windows");
  refused(exact(model, {"--dataset", "text.txt"}), 2, "--token-ids stands instead of --dataset");
  write_npy(folder / "stream.npy", at::arange(40));
  const Words stream = {"exact", "--model", model, "--out", "out", "--token-ids", "stream.npy"};
  refused(tool(stream + Words{"--seqlen", "20"}), 2, "seqlen 20: the model has only 12 positions");
  refused(tool(stream + Words{"--seqlen", "10", "--b", "5"}), 2, "4 windows");
  write_npy(folder / "large.npy", at::full({2, 12}, 48));
  refused(tool({"exact", "--model", model, "--out", "out", "--token-ids", "large.npy"}), 2,
          "outside the model's vocabulary of 48");
  refused(tool({"exact", "--model", model, "--out", "out"}), 2, "no data");
  refused(tool({"exact", "--model", model, "--out", "out", "--dataset", "wikitext2", "--offline", "--cache-dir", "."}),
          1, "Salesforce/wikitext at main is not in the cache .");
  write_bytes(folder / "empty.txt", " \n\n");
  refused(tool({"exact", "--model", model, "--out", "out", "--dataset", "empty.txt"}), 2, "empty");
  refused(tool({"exact", "--model", model, "--out", "out", "--dataset", "missing.txt"}), 1, "missing.txt");
}

TEST_F(Usage, MissingTokenizer) {
  refused(tool({"exact", "--model", model, "--out", "out", "--dataset", "text.txt"}), 1, "tokenizer");
  refused(tool({"tokenize", "--model", model, "--dataset", "text.txt"}), 1, "tokenizer");
}

TEST_F(Usage, ModelsThatAreNotThere) {
  refused(exact("opt-125m"), 2, "opt-125m: no such folder, and no ORG/NAME of the hub");
  refused(exact("text.txt"), 2, "a model folder is expected");
  refused(exact(folder.path.string()), 1, "config.json");
}

TEST_F(Usage, DamagedModels) {
  const fs::path damaged = copy_model(folder, "opt-pre");
  const fs::path weights = damaged / "model.safetensors";
  const std::string whole = read_bytes(weights);

  write_bytes(weights, whole.substr(0, whole.size() / 2));
  refused(exact("model"), 1, "model.safetensors");
  write_bytes(weights, whole.substr(0, 5));
  refused(exact("model"), 1, "model.safetensors");
  std::string corrupt = whole;
  corrupt[9] = '!';
  write_bytes(weights, corrupt);
  refused(exact("model"), 1, "model.safetensors");
  corrupt = whole;
  corrupt[7] = '\x7f';  // a header of 2^62 bytes
  write_bytes(weights, corrupt);
  refused(exact("model"), 1, "model.safetensors");
  write_bytes(weights, whole);

  replace_tensor(damaged, query, at::zeros({16, 15}, at::kDouble));
  refused(exact("model"), 1, "(16, 15)");
  at::Tensor holed = at::zeros({16, 16}, at::kDouble);
  holed[3][4] = std::numeric_limits<double>::quiet_NaN();
  replace_tensor(damaged, query, holed);
  refused(exact("model"), 1, query);
  fs::remove(weights);
  refused(exact("model"), 1, "model.safetensors");
  write_bytes(weights, whole);

  edit_config(damaged, {{"model_type", "mamba"}});
  refused(exact("model"), 1, "mamba");
  edit_config(damaged, {{"model_type", "opt"}, {"activation_function", "mish"}});
  refused(exact("model"), 1, "mish");
  edit_config(damaged, {{"activation_function", "relu"}, {"ffn_dim", 35}});
  refused(exact("model"), 1, "(35, 16)");
  write_bytes(damaged / "config.json", "{\"model_type\": ");
  refused(exact("model"), 1, "config.json");
}

TEST_F(Usage, UnwritableOutput) {
  write_bytes(folder / "file", "");
  const Words run = {"exact", "--model", model, "--token-ids", "ids.npy"};
  expect_refusal(tool(run + Words{"--out", "file"}), 1, "cannot write file");
  expect_refusal(tool(run + Words{"--out", "file/below"}), 1, "cannot write file/below");
  expect_refusal(tool(run + Words{"--out", "/proc/hesper"}), 1, "cannot write /proc/hesper");
  fs::create_directory(folder / "locked");
  ::chmod((folder / "locked").c_str(), 0500);
  if (::access((folder / "locked").c_str(), W_OK) != 0) {  // root may write everywhere
    expect_refusal(tool(run + Words{"--out", "locked"}), 1, "cannot write locked");
  }
}

TEST_F(Usage, QuietSaysNothing) {
  const Outcome outcome = exact(model, {"--quiet"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(outcome.err, "");
}

}  // namespace
}  // namespace hesper
