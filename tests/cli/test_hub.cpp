// Models by their id on the hub, from the command line; the hub is a local server.
#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors.h"
#include "cli/tool.h"
#include "hub/fake_hub.h"
#include "text/parquet.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;

class HubCommand : public testing::Test {
 protected:
  HubCommand() {
    test::FakeRepository& model = hub.repositories["org/name"];
    for (const char* file : {"config.json", "model.safetensors"}) {
      model.files[file] = read_bytes(golden_folder("opt-pre") + "/" + file);
    }
    model.files["notes.txt"] = "not needed";
    model.large = {"model.safetensors"};
    write_npy(folder / "ids.npy", at::arange(60).remainder(40).view({5, 12}));
  }
  Outcome tool(const Words& words, const std::string& environment = "") {
    return run_tool(folder.path, words,
                    fmt::format(">.out 2>.err env -u HF_TOKEN -u HF_HUB_CACHE -u HF_HUB_OFFLINE HF_ENDPOINT={} "
                                "HF_HOME={} {}",
                                hub.url(), quoted((folder / "home").string()), environment));
  }
  Outcome exact(const Words& more = {}, const std::string& environment = "") {
    return tool(
        Words{"exact", "--model", "org/name", "--token-ids", "ids.npy", "--t", "2", "--b", "2", "--overwrite"} + more,
        environment);
  }
  nlohmann::json record() const {
    for (const auto& entry : fs::directory_iterator(folder / "data" / "name")) {
      if (entry.path().extension() == ".json") return nlohmann::json::parse(read_bytes(entry.path()));
    }
    return {};
  }

  test::FakeHub hub;
  TemporaryFolder folder;
};

TEST_F(HubCommand, FetchesRecordsAndWorksOffline) {
  const Outcome first = exact();
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_NE(first.err.find("note: fetched 2 files"), std::string::npos) << first.err;
  EXPECT_EQ(record()["model"]["name"], "name");
  EXPECT_EQ(record()["model"]["hub_id"], "org/name");
  EXPECT_EQ(record()["model"]["revision"], std::string(40, 'a'));
  const fs::path cached = folder / "home" / "hub" / "models--org--name" / "snapshots" / std::string(40, 'a');
  EXPECT_TRUE(fs::exists(cached / "model.safetensors"));
  EXPECT_FALSE(fs::exists(cached / "notes.txt"));

  const size_t requests = hub.hub().requests().size();
  EXPECT_EQ(exact({"--offline"}).code, 0);
  EXPECT_EQ(exact({}, "HF_HUB_OFFLINE=1").code, 0);
  EXPECT_EQ(exact({}, "HF_HUB_OFFLINE=1 HF_HUB_CACHE=home/hub").err, "");
  EXPECT_EQ(hub.hub().requests().size(), requests);
  expect_refusal(exact({"--offline", "--cache_dir", "other"}), 1, "org/name at main is not in the cache other");
  EXPECT_EQ(exact({"--cache_dir", "other", "--quiet"}).err, "");
  EXPECT_TRUE(fs::exists(folder / "other" / "models--org--name"));
}

TEST_F(HubCommand, FoldersWin) {
  fs::create_directories(folder / "org");
  fs::copy(golden_folder("opt-pre"), folder / "org" / "name");
  ASSERT_EQ(exact().code, 0);
  EXPECT_TRUE(record()["model"]["hub_id"].is_null());
  EXPECT_TRUE(hub.hub().requests().empty());
  expect_refusal(exact({"--revision", "main"}), 2, "--revision main: of models of the hub");
}

TEST_F(HubCommand, QuadraticSaysWhereBothCheckpointsCameFrom) {
  const Checkpoint stored = Checkpoint::open(golden_folder("opt-pre"));
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const std::string& name : stored.names()) tensors.emplace_back(name, stored.tensor(name) * 1.01);
  write_safetensors(folder / "moved.safetensors", tensors);
  test::FakeRepository& moved = hub.repositories["org/moved"];
  moved.commit = std::string(40, 'b');
  moved.files = {{"config.json", read_bytes(golden_folder("opt-pre") + "/config.json")},
                 {"model.safetensors", read_bytes(folder / "moved.safetensors")}};
  const Outcome outcome = tool({"quadratic", "--model", "org/name", "--against", "org/moved", "--token-ids", "ids.npy",
                                "--b", "2", "--group", "model"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const nlohmann::json against = record()["against"];
  EXPECT_EQ(against["name"], "moved");
  EXPECT_EQ(against["hub_id"], "org/moved");
  EXPECT_EQ(against["revision"], moved.commit);
  EXPECT_EQ(against["sha256"], test::sha256_of(moved.files["model.safetensors"]));
}

TEST_F(HubCommand, RefusesInOneLine) {
  expect_refusal(exact({"--revision", "v9"}), 1, "no revision v9");
  expect_refusal(exact({"--revision", "../v9"}), 2, "not a branch, tag or commit");
  expect_refusal(exact({}, "HF_ENDPOINT=ftp://x"), 2, "HF_ENDPOINT=ftp://x");
  expect_refusal(exact({}, "HF_ENDPOINT=http://127.0.0.1:1"), 1, "http://127.0.0.1:1");
  expect_refusal(exact({}, "HF_HUB_DOWNLOAD_TIMEOUT=x"), 2, "HF_HUB_DOWNLOAD_TIMEOUT=x");
  expect_refusal(exact({}, "HF_TOKEN='a b'"), 2, "HF_TOKEN");
  EXPECT_FALSE(fs::exists(folder / "data"));
  expect_refusal(tool({"info", "--model", "org/none"}), 1, "no such repository");
}

TEST_F(HubCommand, GatedWithTheTokensOfTheEnvironment) {
  hub.repositories["org/name"].gated = true;
  hub.token = "hf_secret";
  expect_refusal(exact(), 1, "gated: accept its terms on that page, then set HF_TOKEN");
  const Outcome wrong = exact({}, "HF_TOKEN=hf_wrong");
  expect_refusal(wrong, 1, "the token of HF_TOKEN has no access");
  EXPECT_EQ(wrong.err.find("hf_wrong"), std::string::npos);
  folder.write("token-file", "hf_secret\n");
  EXPECT_EQ(tool({"info", "--model", "org/name"}, "HF_TOKEN_PATH=token-file").code, 0);
  fs::remove_all(folder / "home");
  fs::create_directories(folder / "home");
  write_bytes(folder / "home" / "token", "hf_secret");
  EXPECT_EQ(tool({"info", "--model", "org/name"}).code, 0);
  fs::remove_all(folder / "home");
  EXPECT_EQ(tool({"info", "--model", "org/name"}, "HF_TOKEN=hf_secret").code, 0);
}

TEST_F(HubCommand, GoesOnOnceTheDiskHasRoom) {
  // Calls of write: CACHEDIR.TAG, config.json, then parts of the weights.
  const Outcome full = exact({}, fmt::format("LD_PRELOAD={} HESPER_FAULT=enospc:4", quoted(HESPER_FAULTS)));
  EXPECT_EQ(full.code, 1);
  EXPECT_NE(full.err.find("No space left on device; make room and run again"), std::string::npos) << full.err;
  ASSERT_EQ(exact().code, 0);
  EXPECT_TRUE(hub.cdn().requests().back().header("range").starts_with("bytes="));
}

TEST_F(HubCommand, TokenizeKeepsStandardOutputForIds) {
  const fs::path tiny = shared_file("models/opt-tiny");
  if (!fs::exists(tiny)) GTEST_SKIP() << "not there: " << tiny;
  test::FakeRepository& model = hub.repositories["org/tiny"];
  for (const auto& entry : fs::directory_iterator(tiny))
    model.files[entry.path().filename()] = read_bytes(entry.path());
  write_bytes(folder / "text.txt", "The cat sat.\n");
  const Words words = {"tokenize", "--dataset", "text.txt", "--model"};
  const Outcome fetched = tool(words + Words{"org/tiny"});
  EXPECT_EQ(fetched.code, 0) << fetched.err;
  EXPECT_EQ(fetched.out, tool(words + Words{tiny.string()}).out);
  EXPECT_EQ(hub.hub().count("GET", "safetensors"), 0);
}

TEST_F(HubCommand, DatasetsByName) {
  const std::string tiny = shared_file("models/opt-tiny");
  if (!fs::exists(tiny)) GTEST_SKIP() << "not there: " << tiny;
  if (!reads_parquet()) GTEST_SKIP() << "this build has no Arrow";
  const std::string seed = read_bytes(fmt::format("{}/fuzz/corpus/parquet/good_required.parquet", HESPER_SOURCE_DIR));
  test::FakeRepository& wikitext = hub.repositories["datasets/Salesforce/wikitext"];
  wikitext.files = {{"wikitext-2-raw-v1/test-00000-of-00001.parquet", seed},
                    {"wikitext-103-raw-v1/test-00000-of-00001.parquet", seed}};
  wikitext.large = {"wikitext-2-raw-v1/test-00000-of-00001.parquet"};
  hub.repositories["datasets/org/texts"].files = {{"en/train.jsonl", "{\"body\": \"One.\"}\n{\"body\": \"Two.\"}\n"}};
  write_bytes(folder / "same.txt", "One.\n\nTwo.");
  const Words tokenize = {"tokenize", "--model", tiny, "--json", "--dataset"};

  const auto local =
      last_event(tool(tokenize + Words{"wikitext2", "--dataset-path",
                                       fmt::format("{}/fuzz/corpus/parquet/good_required.parquet", HESPER_SOURCE_DIR)}),
                 "result");
  const auto fetched = last_event(tool(tokenize + Words{"wikitext2"}), "result");
  EXPECT_GT(fetched["count"], 10);
  EXPECT_EQ(fetched, local);
  EXPECT_EQ(last_event(tool(tokenize + Words{"wikitext103", "--offline"}), "result"), nlohmann::json());
  EXPECT_EQ(last_event(tool(tokenize + Words{"wikitext103"}), "result")["ids"], local["ids"]);
  EXPECT_EQ(last_event(tool(tokenize + Words{"wikitext2", "--offline"}), "result")["ids"], local["ids"]);

  const auto expected = last_event(tool(tokenize + Words{"same.txt"}), "result")["ids"];
  const auto rows = last_event(
      tool(tokenize + Words{"org/texts", "--config", "en", "--split", "train", "--text-column", "body"}), "result");
  EXPECT_EQ(rows["ids"], expected);
  EXPECT_EQ(rows["data"], "org/texts en train");
  EXPECT_EQ(last_event(tool(tokenize + Words{"org/texts/en/train.jsonl", "--text-column", "body"}), "result")["ids"],
            expected);
  fs::create_directories(folder / "local" / "en");
  write_bytes(folder / "local" / "en" / "test.jsonl", "{\"text\": \"One.\"}\n{\"text\": \"Two.\"}\n");
  EXPECT_EQ(last_event(tool(tokenize + Words{"local"}), "result")["ids"], expected);

  expect_refusal(tool(tokenize + Words{"org/texts"}), 1, "no files of split test; there are \"train\"");
  expect_refusal(tool(tokenize + Words{"org/texts", "--split", "train"}), 1,
                 "no text named \"text\"; there are \"body\"");
  expect_refusal(tool(tokenize + Words{"wikitext2", "--split", "dev"}), 2, "train, validation and test");
  expect_refusal(tool(tokenize + Words{"same.txt", "--split", "test"}), 2, "--split test: not with a file");
  expect_refusal(tool(tokenize + Words{"same.txt", "--text-column", "x"}), 2, "text without columns");

  // The record says where the text came from.
  ASSERT_EQ(tool({"exact", "--model", tiny, "--dataset", "org/texts", "--split", "train", "--text-column", "body",
                  "--t", "2", "--out", "data/name"})
                .code,
            0);
  EXPECT_EQ(record()["data"]["hub_id"], "org/texts");
  EXPECT_EQ(record()["data"]["revision"], std::string(40, 'a'));
}

}  // namespace
}  // namespace hesper
