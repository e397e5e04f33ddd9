// hesper tokenize and perplexity.
#include <fmt/ranges.h>

#include <cmath>

#include "cli/tool.h"
#include "oracle/golden.h"
#include "text/corpus.h"
#include "text/tokenizer.h"
#include "text/windows.h"

namespace hesper {
namespace {

TEST(TokenizeCommand, GivesTheWholeStream) {
  const std::string model = shared_file("models/opt-tiny");
  if (!std::filesystem::exists(model)) GTEST_SKIP() << "not there: " << model;
  const TemporaryFolder folder;
  const std::string text = "The cat sat.\n\n = Title = \nNa\xc3\xafve caf\xc3\xa9\n";
  write_bytes(folder / "t.txt", text);
  const auto tokenizer = load_tokenizer(model);
  std::vector<int32_t> ids = tokenizer->encode(text);
  ASSERT_TRUE(tokenizer->bos());
  ids.insert(ids.begin(), *tokenizer->bos());
  const std::string expected = fmt::format("{}", fmt::join(ids, " "));

  const Words words = {"tokenize", "--model", model, "--dataset", "t.txt"};
  EXPECT_EQ(run_tool(folder.path, words).out, fmt::format("{}\n", expected));
  EXPECT_EQ(run_tool(folder.path, words + Words{"--bos", "none"}).out,
            fmt::format("{}\n", expected.substr(expected.find(' ') + 1)));
  ASSERT_EQ(run_tool(folder.path, words + Words{"--out", "t.npy"}).code, 0);
  EXPECT_TRUE(at::equal(read_npy(folder / "t.npy"), at::tensor(ids, at::kInt)));
  const auto event = last_event(run_tool(folder.path, words + Words{"--json"}), "result");
  EXPECT_EQ(event["ids"], nlohmann::json(ids));
  EXPECT_EQ(event["ids_sha256"], ids_sha256(ids));
  expect_refusal(run_tool(folder.path, words + Words{"--out", "t.txt"}), 2, ".npy");
  expect_refusal(run_tool(folder.path, words + Words{"--bos", "window"}), 2, "--bos window");

  // As WikiText-2: the joined rows.
  const Words joined = {"tokenize", "--model", model, "--dataset", "wikitext2", "--dataset_path", "t.txt", "--json"};
  EXPECT_EQ(last_event(run_tool(folder.path, joined), "result")["count"],
            tokenizer->encode(join_wikitext2_rows(text)).size() + 1);
}

TEST(PerplexityCommand, GoldenLossWithItsStandardError) {
  const TemporaryFolder folder;
  const oracle::Golden golden = oracle::read_golden("llama-gqa");
  write_npy(folder / "ids.npy", golden.ids);
  write_npy(folder / "labels.npy", golden.labels);
  const Words words = {"perplexity", "--model", golden.folder, "--token-ids", "ids.npy", "--labels", "labels.npy"};
  const auto event = last_event(run_tool(folder.path, words + Words{"--json"}), "result");
  // fp64 by default: the tolerance of tests/oracle/test_golden.cpp.
  const auto losses = event["window_losses"].get<std::vector<double>>();
  EXPECT_LE(oracle::relative_error(at::tensor(losses, at::kDouble), golden.window_losses), 1e-12);
  const auto b = static_cast<double>(losses.size());
  double mean = 0, square = 0;
  for (const double loss : losses) mean += loss / b;
  for (const double loss : losses) square += (loss - mean) * (loss - mean);
  const double error = std::sqrt(square / (b - 1) / b);
  EXPECT_NEAR(event["loss_standard_error"].get<double>(), error, 1e-12);
  const double perplexity = std::exp(event["loss"].get<double>());
  EXPECT_NEAR(event["perplexity"].get<double>(), perplexity, 1e-12 * perplexity);
  EXPECT_NEAR(event["perplexity_standard_error"].get<double>(), perplexity * error, 1e-12 * perplexity);

  const Outcome text = run_tool(folder.path, words + Words{"--quiet"});
  EXPECT_TRUE(text.out.starts_with("loss ")) << text.out;
  EXPECT_NE(text.out.find("+-"), std::string::npos) << text.out;
  const auto one = last_event(run_tool(folder.path, words + Words{"--b", "1", "--json"}), "result");
  EXPECT_TRUE(one["perplexity_standard_error"].is_null());
  expect_refusal(run_tool(folder.path, words + Words{"--precision", "fp16"}), 2, "--precision fp16");
}

TEST(CheckCommand, TableEventsAndScript) {
  const TemporaryFolder folder;
  const oracle::Golden golden = oracle::read_golden("llama-gqa");
  write_npy(folder / "ids.npy", golden.ids);
  const Words words = {"check", "--model", golden.folder, "--token-ids", "ids.npy", "--t", "4"};
  const Outcome table = run_tool(folder.path, words);
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_NE(table.out.find("autograd fp64"), std::string::npos) << table.out;
  const Outcome events = run_tool(folder.path, words + Words{"--differenced", "0", "--json"});
  EXPECT_EQ(events.code, 0) << events.err;
  EXPECT_FALSE(last_event(events, "result").at("rows").empty());
  ASSERT_EQ(run_tool(folder.path, words + Words{"--export-script", "check.py"}).code, 0);
  EXPECT_NE(read_bytes(folder / "check.py").find("transformers"), std::string::npos);
  expect_refusal(run_tool(folder.path, words + Words{"--directions", "9"}), 2, "9");
}

// Published with the model: 183.44497 over the first 8 windows of 512, one BOS before the document.
TEST(PerplexityCommand, OptTinyOnWikiText2) {
  const std::string packed = shared_file("text/wiki.test.raw.gz"), model = shared_file("models/opt-tiny");
  for (const std::string& file : {packed, model}) {
    if (!std::filesystem::exists(file)) GTEST_SKIP() << "not there: " << file;
  }
  const TemporaryFolder folder;
  const std::string unpacked = (folder / "wiki.test.raw").string();
  ASSERT_EQ(std::system(fmt::format("gzip -dc {} >{}", quoted(packed), quoted(unpacked)).c_str()), 0);
  const auto event = last_event(run_tool(folder.path, {"perplexity", "--model", model, "--dataset", "wikitext2",
                                                       "--dataset-path", "wiki.test.raw", "--b", "8", "--json"}),
                                "result");
  EXPECT_EQ(event["seqlen"], 512);                                  // the model's positions
  EXPECT_NEAR(event["perplexity"].get<double>(), 183.44497, 1e-5);  // the digits that are published
}

}  // namespace
}  // namespace hesper
