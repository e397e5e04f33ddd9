// A GGUF file and the Hugging Face folder of the same weights: the same results, entry by entry.
#include <ATen/ATen.h>

#include "checkpoint/safetensors.h"
#include "cli/tool.h"
#include "model/gguf_twin.h"
#include "oracle/golden.h"
#include "report/pt_file.h"

namespace hesper {
namespace {

class Gguf : public testing::Test {
 protected:
  // The golden model in float32, as a folder and as a file.
  void SetUp() override {
    write_npy(folder / "ids.npy", golden.ids);
    std::filesystem::create_directory(folder / "model");
    std::filesystem::copy_file(golden.folder + "/config.json", folder / "model/config.json");
    const Checkpoint stored = Checkpoint::open(golden.folder);
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const std::string& name : stored.names()) tensors.emplace_back(name, stored.tensor(name).to(at::kFloat));
    write_safetensors(folder / "model/model.safetensors", tensors);
    const Checkpoint single = Checkpoint::open(folder / "model");
    folder.write("model.gguf", gguf_twin(single, parse_config(single)));
  }
  at::Tensor exact(const Words& words) {
    const Outcome outcome = run_tool(
        folder.path,
        Words{"exact", "--token-ids", "ids.npy", "--precision", "fp64", "--overwrite", "--out", "out"} + words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    for (const auto& entry : std::filesystem::directory_iterator(folder / "out")) {
      if (entry.path().extension() != ".pt") continue;
      const at::Tensor h = read_pt(entry.path());
      std::filesystem::remove_all(folder / "out");
      return h;
    }
    ADD_FAILURE() << "no .pt: " << outcome.out << outcome.err;
    return {};
  }

  const oracle::Golden golden = oracle::read_golden("llama-gqa");
  const TemporaryFolder folder;
};

TEST_F(Gguf, gives_the_hessian_of_the_folder) {
  for (const char* layer : {"self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj"}) {
    const Words selection = {"--layer", layer, "--block", "1", "--random", "9"};
    const at::Tensor a = exact(Words{"--model", "model"} + selection);
    EXPECT_TRUE(at::equal(exact(Words{"--model", "model.gguf"} + selection), a)) << layer;
    EXPECT_GT(a.norm().item<double>(), 0);
  }
  EXPECT_TRUE(at::equal(exact({"--model", "model.gguf", "--layer", "blk.1.attn_q", "--random", "9"}),
                        exact({"--model", "model", "--layer", "q_proj", "--block", "1", "--random", "9"})));
}

// Rows put in order are copies: (24 + 12) x 16 floats in each of the two blocks, and no mapped weight besides.
TEST_F(Gguf, plan_counts_what_is_not_mapped) {
  const auto weights = [&](const char* model) {
    const Outcome outcome = run_tool(
        folder.path, {"plan", "--model", model, "--token-ids", "ids.npy", "--t", "4", "--precision", "fp32", "--json"});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return last_event(outcome, "plan").at("memory").at("weights").get<int64_t>();
  };
  EXPECT_EQ(weights("model"), 0);
  EXPECT_EQ(weights("model.gguf"), 2 * (24 + 12) * 16 * 4);
}

TEST_F(Gguf, info_shows_what_is_in_it) {
  const Outcome outcome = run_tool(folder.path, {"info", "--model", "model.gguf"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("model.gguf (llama, GGUF)"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("21 tensors (21 float32)"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("none: model.gguf: tokenizer.ggml.model is missing"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("self_attn.q_proj, self_attn.k_proj"), std::string::npos) << outcome.out;
  const auto event = last_event(run_tool(folder.path, {"info", "--model", "model", "--json"}), "model");
  EXPECT_EQ(event["format"], "safetensors");
  EXPECT_EQ(event["tensors"], 21);
}

TEST_F(Gguf, refusals_are_one_line) {
  folder.write("text.txt", "a b");
  expect_refusal(run_tool(folder.path, {"tokenize", "--model", "model.gguf", "--dataset", "text.txt"}), 1,
                 "model.gguf: tokenizer.ggml.model is missing");
  folder.write("bad.gguf", "GGUX");
  expect_refusal(run_tool(folder.path, {"info", "--model", "bad.gguf"}), 1, "bad.gguf: not a GGUF file");
  expect_refusal(run_tool(folder.path, {"info", "--model", "none.gguf"}), 2, "none.gguf: no such folder");
  expect_refusal(run_tool(folder.path, {"check", "--model", "model.gguf", "--token-ids", "ids.npy", "--t", "2",
                                        "--export-script", "check.py"}),
                 2, "model.gguf is a GGUF file");
}

}  // namespace
}  // namespace hesper
