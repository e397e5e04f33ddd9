// One cache, two programs: huggingface_hub of Python finds what hesper fetched, and the other way round.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "fake_hub.h"
#include "hub/fetch.h"
#include "hub/hub_cache.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;

class Interoperation : public testing::Test {
 protected:
  Interoperation() {
    test::FakeRepository& model = hub.repositories["org/name"];
    model.files = {{"config.json", "{}"},
                   {"tokenizer.json", "{ }"},
                   {"tokenizer_config.json", "{  }"},
                   {"model.safetensors", std::string(100'000, 'w')}};
    model.large = {"model.safetensors"};
  }

  void SetUp() override {
    const char* python = std::getenv("HESPER_ORACLE_PYTHON");
    if (python) python_ = python;
    const std::string probe = fmt::format("'{}' -c 'import huggingface_hub, filelock' 2>/dev/null", python_);
    if (!python || std::system(probe.c_str()) != 0) {
      GTEST_SKIP() << "needs a Python with huggingface_hub, named by the environment variable HESPER_ORACLE_PYTHON";
    }
  }

  /// Runs a step of interoperation.py; what it said, "" where all went well.
  std::string python(const std::string& step, const std::string& more = "") {
    const fs::path log = folder / "log";
    const std::string command = fmt::format(
        "HF_ENDPOINT={} HF_HOME='{}' HF_HUB_DISABLE_PROGRESS_BARS=1 HF_HUB_DISABLE_TELEMETRY=1 NO_PROXY='*' "
        "'{}' '{}/tests/hub/interoperation.py' {} '{}' '{}' >'{}' 2>&1",
        hub.url(), (folder / "home").string(), python_, HESPER_SOURCE_DIR, step, cache.string(), more, log.string());
    return std::system(command.c_str()) == 0 ? "" : "failed: " + read_bytes(log);
  }

  HubSnapshot fetch() { return fetch_model(settings, "org/name", "main", ModelPart::all, {}); }
  int64_t downloads() const { return hub.hub().count("GET", "/resolve/") + hub.cdn().count("GET", "/"); }

  std::string python_;
  test::FakeHub hub;
  TemporaryFolder folder;
  fs::path cache = folder / "hub";
  HubSettings settings = hub.settings(cache);
};

TEST_F(Interoperation, PythonFindsOurs) {
  fetch();
  const int64_t before = downloads();
  EXPECT_EQ(python("find"), "");
  EXPECT_EQ(downloads(), before);
}

TEST_F(Interoperation, WeFindPythons) {
  ASSERT_EQ(python("fetch"), "");
  const int64_t before = downloads();
  EXPECT_EQ(read_bytes(fetch().folder / "model.safetensors"), std::string(100'000, 'w'));
  EXPECT_EQ(downloads(), before);
  settings.offline = true;
  const size_t requests = hub.hub().requests().size();
  EXPECT_EQ(read_bytes(fetch().folder / "config.json"), "{}");
  EXPECT_EQ(hub.hub().requests().size(), requests);
}

TEST_F(Interoperation, LocksAreTheSame) {
  const HubCache shared(cache, {RepositoryKind::model, "org/name"});
  shared.make_folders();
  const BlobLock lock(shared, "some-etag", [] {});
  EXPECT_EQ(python("locked", (cache / ".locks" / "models--org--name" / "some-etag.lock").string()), "");
}

}  // namespace
}  // namespace hesper
