// The hub's client against a local server: what is fetched, what is kept, and what goes wrong.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "fake_hub.h"
#include "hub/blob_hash.h"
#include "hub/fetch.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;
using test::FakeHub;
using test::ServerAnswer;
using test::ServerRequest;

const std::string commit(40, 'a');

class Fetch : public testing::Test {
 protected:
  Fetch() {
    test::FakeRepository& model = hub.repositories["org/name"];
    model.files = {{"config.json", R"({"model_type": "opt"})"},
                   {"tokenizer.json", "{}"},
                   {"tokenizer_config.json", "{ }"},
                   {"model.safetensors", weights},
                   {"pytorch_model.bin", "never read"},
                   {"README.md", "never read either"}};
    model.large = {"model.safetensors", "pytorch_model.bin"};
  }

  HubSnapshot fetch(ModelPart part = ModelPart::all, const std::string& revision = "main") {
    return fetch_model(
        settings, "org/name", revision, part,
        {[&](const FetchProgress& p) { progress = p; }, [&](const std::string& note) { notes.push_back(note); }});
  }
  std::string error() {
    return error_of<std::runtime_error>([&] { fetch(); });
  }
  fs::path folder() const { return cache / "models--org--name"; }
  fs::path weights_blob(const std::string& end = "") const {
    return folder() / "blobs" / (test::sha256_of(weights) + end);
  }

  std::string weights = [] {
    std::string bytes(100'000, '\0');
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * i / 7);
    return bytes;
  }();
  TemporaryFolder cache_folder;
  fs::path cache = cache_folder / "hub";
  FakeHub hub;
  HubSettings settings = hub.settings(cache);
  FetchProgress progress;
  std::vector<std::string> notes;
};

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_F(Fetch, OnlyWhatIsNeededAsTheHubsOwnClientKeepsIt) {
  const HubSnapshot snapshot = fetch();
  EXPECT_EQ(snapshot.commit, commit);
  EXPECT_EQ(snapshot.folder, folder() / "snapshots" / commit);
  std::set<std::string> files;
  for (const auto& entry : fs::directory_iterator(snapshot.folder)) files.insert(entry.path().filename());
  EXPECT_EQ(files,
            (std::set<std::string>{"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}));
  EXPECT_EQ(read_bytes(snapshot.folder / "model.safetensors"), weights);
  EXPECT_EQ(fs::read_symlink(snapshot.folder / "model.safetensors"),
            fs::path("../../blobs") / test::sha256_of(weights));
  EXPECT_EQ(fs::read_symlink(snapshot.folder / "tokenizer.json"), fs::path("../../blobs") / test::git_sha1_of("{}"));
  EXPECT_EQ(read_bytes(folder() / "refs" / "main"), commit);
  EXPECT_TRUE(fs::exists(cache / ".locks" / "models--org--name" / (test::sha256_of(weights) + ".lock")));
  EXPECT_TRUE(fs::exists(cache / "CACHEDIR.TAG"));
  EXPECT_FALSE(fs::exists(weights_blob(".incomplete")));
  EXPECT_EQ(progress.files, 4);
  EXPECT_GE(progress.fetched, 100'000);
}

TEST_F(Fetch, NothingTwice) {
  fetch();
  const int64_t before = hub.hub().count("GET", "/resolve/");
  fetch();
  EXPECT_EQ(hub.hub().count("GET", "/resolve/"), before);
  // A commit in the cache asks nothing at all.
  const size_t requests = hub.hub().requests().size();
  EXPECT_EQ(fetch(ModelPart::all, commit).commit, commit);
  EXPECT_EQ(hub.hub().requests().size(), requests);
}

TEST_F(Fetch, TokenizerAlone) {
  const HubSnapshot snapshot = fetch(ModelPart::tokenizer);
  EXPECT_TRUE(fs::exists(snapshot.folder / "tokenizer.json"));
  EXPECT_FALSE(fs::exists(snapshot.folder / "model.safetensors"));
  EXPECT_FALSE(fs::exists(snapshot.folder / "config.json"));
  // Which does not make the model's files look complete.
  settings.offline = true;
  EXPECT_TRUE(holds(error(), "no weights"));
}

TEST_F(Fetch, ShardsOfTheIndex) {
  auto& files = hub.repositories["org/name"].files;
  files.erase("model.safetensors");
  hub.repositories["org/name"].large = {"model-1.safetensors"};
  files["model-1.safetensors"] = weights;
  files["model-2.safetensors"] = "second";
  files["model-3.safetensors"] = "of another model";
  files["model.safetensors.index.json"] =
      R"({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}})";
  const HubSnapshot snapshot = fetch();
  EXPECT_EQ(read_bytes(snapshot.folder / "model-1.safetensors"), weights);
  EXPECT_EQ(read_bytes(snapshot.folder / "model-2.safetensors"), "second");
  EXPECT_FALSE(fs::exists(snapshot.folder / "model-3.safetensors"));
  EXPECT_FALSE(fs::exists(snapshot.folder / "pytorch_model.bin"));

  files["model.safetensors.index.json"] = R"({"weight_map": {"a": "../../../evil"}})";
  hub.repositories["org/name"].commit = std::string(40, 'b');
  EXPECT_TRUE(holds(error(), "the repository does not hold")) << error();
}

TEST_F(Fetch, RevisionsAndTheirRefs) {
  auto& model = hub.repositories["org/name"];
  model.revisions.insert("v1.0");
  EXPECT_EQ(fetch(ModelPart::all, "v1.0").commit, commit);
  EXPECT_EQ(read_bytes(folder() / "refs" / "v1.0"), commit);
  model.revisions.insert("refs%2Fpr%2F3");
  fetch(ModelPart::all, "refs/pr/3");
  EXPECT_EQ(read_bytes(folder() / "refs" / "refs" / "pr" / "3"), commit);
  EXPECT_TRUE(holds(error_of<std::runtime_error>([&] { fetch(ModelPart::all, "v2"); }), "no revision v2"));
  for (const char* bad : {"", "../../x", "a//b", "a b", "/etc"}) {
    EXPECT_TRUE(holds(error_of<std::invalid_argument>([&] { fetch(ModelPart::all, bad); }), "not a branch")) << bad;
  }
  // main moves: the new commit's files, of which the unchanged are linked only.
  const int64_t before = hub.cdn().count("GET", "/");
  model.commit = std::string(40, 'b');
  model.files["config.json"] = "{ }";
  EXPECT_EQ(fetch().commit, model.commit);
  EXPECT_EQ(read_bytes(folder() / "refs" / "main"), model.commit);
  EXPECT_EQ(hub.cdn().count("GET", "/"), before);
}

TEST_F(Fetch, OfflineAndNetworkGone) {
  settings.offline = true;
  EXPECT_TRUE(holds(error(), "not in the cache"));
  EXPECT_TRUE(hub.hub().requests().empty());
  settings.offline = false;
  fetch();
  const size_t requests = hub.hub().requests().size();
  settings.offline = true;
  EXPECT_EQ(fetch().commit, commit);
  EXPECT_EQ(hub.hub().requests().size(), requests);

  settings.offline = false;
  settings.endpoint = "http://127.0.0.1:1";
  EXPECT_EQ(fetch().commit, commit);
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_TRUE(holds(notes[0], "taken from the cache")) << notes[0];
  settings.cache = cache_folder / "other";
  EXPECT_TRUE(holds(error(), "http://127.0.0.1:1")) << error();
  EXPECT_TRUE(holds(error(), "--offline"));
}

TEST_F(Fetch, TokenGoesToTheHubAlone) {
  auto& model = hub.repositories["org/name"];
  model.gated = true;
  hub.token = "hf_right";
  EXPECT_TRUE(holds(error(), "gated: accept its terms on that page, then set HF_TOKEN")) << error();
  settings.token = "hf_wrong";
  settings.token_source = "HF_TOKEN";
  EXPECT_TRUE(holds(error(), "the token of HF_TOKEN has no access")) << error();
  EXPECT_FALSE(holds(error(), "hf_wrong"));
  settings.token = "hf_right";
  EXPECT_EQ(read_bytes(fetch().folder / "model.safetensors"), weights);
  EXPECT_GT(hub.cdn().requests().size(), 0U);
  for (const ServerRequest& request : hub.cdn().requests()) EXPECT_EQ(request.header("authorization"), "");
}

TEST_F(Fetch, RefusalsSayWhatToDo) {
  EXPECT_TRUE(
      holds(error_of<std::runtime_error>([&] { fetch_model(settings, "org/none", "main", ModelPart::all, {}); }),
            "no such repository, or a private one: check the name, or set HF_TOKEN"));
  int status = 404;
  hub.meddle = [&](const ServerRequest&, ServerAnswer& answer) { answer = {status, {}, "?"}; };
  EXPECT_TRUE(holds(error(), "no such repository or revision main: check the name (status 404)")) << error();
  status = 403;
  EXPECT_TRUE(holds(error(), "access denied")) << error();
  status = 503;
  EXPECT_TRUE(holds(error(), "status 503; try again later, or use --offline")) << error();
  status = 429;
  EXPECT_TRUE(holds(error(), "status 429; too many requests: try again in some minutes")) << error();
  hub.meddle = [&](const ServerRequest&, ServerAnswer& answer) { answer.silent = true; };
  EXPECT_TRUE(holds(error(), "no answer within 1 s; check the network")) << error();
  for (const char* bad : {"name", "a/b/c", "-a/b", "a/..", "a--b/c", "a/b c", "a/"}) {
    EXPECT_TRUE(holds(error_of<std::invalid_argument>([&] { fetch_model(settings, bad, "main", ModelPart::all, {}); }),
                      "not an id of the hub"))
        << bad;
  }
}

TEST_F(Fetch, BrokenConnectionsAreTakenUpAgain) {
  hub.meddle = [&](const ServerRequest& request, ServerAnswer& answer) {
    if (request.method == "GET" && answer.body.size() > 30'000) answer.break_after = 30'000;
  };
  EXPECT_EQ(read_bytes(fetch().folder / "model.safetensors"), weights);
  std::vector<std::string> ranges;
  for (const ServerRequest& request : hub.cdn().requests()) ranges.push_back(request.header("range"));
  EXPECT_EQ(ranges, (std::vector<std::string>{"", "bytes=30000-", "bytes=60000-", "bytes=90000-"}));
}

TEST_F(Fetch, PartialFilesOfAnEarlierRun) {
  hub.meddle = [&](const ServerRequest& request, ServerAnswer& answer) {
    if (request.method == "GET" && answer.body == weights) answer.break_after = 40'000;
    if (!request.header("range").empty()) answer = {503};
  };
  const std::string message = error();
  EXPECT_TRUE(holds(message, "model.safetensors: 40000 of 100000 bytes")) << message;
  EXPECT_TRUE(holds(message, "run again to go on from there"));
  EXPECT_EQ(fs::file_size(weights_blob(".incomplete")), 40'000U);
  hub.meddle = nullptr;
  EXPECT_EQ(read_bytes(fetch().folder / "model.safetensors"), weights);
  EXPECT_EQ(hub.cdn().requests().back().header("range"), "bytes=40000-");
  EXPECT_FALSE(fs::exists(weights_blob(".incomplete")));
  EXPECT_EQ(progress.fetched, 60'000);
}

TEST_F(Fetch, ServersWithoutRanges) {
  fs::create_directories(folder() / "blobs");
  write_bytes(weights_blob(".incomplete"), std::string(5000, 'x'));
  hub.meddle = [&](const ServerRequest& request, ServerAnswer& answer) {
    if (answer.status == 206) answer = {200, {}, weights};
    EXPECT_TRUE(request.path.empty() || request.path[0] == '/');
  };
  EXPECT_EQ(read_bytes(fetch().folder / "model.safetensors"), weights);
}

TEST_F(Fetch, LeftoversThatAreNoBeginning) {
  fs::create_directories(folder() / "blobs");
  write_bytes(weights_blob(".incomplete"), std::string(200'000, 'x'));  // longer than the file
  EXPECT_EQ(read_bytes(fetch().folder / "model.safetensors"), weights);

  fs::remove_all(cache);
  fs::create_directories(folder() / "blobs");
  write_bytes(weights_blob(".incomplete"), std::string(5000, 'x'));  // other bytes: only the hash tells
  EXPECT_TRUE(holds(error(), "the server promised " + test::sha256_of(weights)));
  EXPECT_FALSE(fs::exists(weights_blob()));
  EXPECT_FALSE(fs::exists(weights_blob(".incomplete")));
  EXPECT_EQ(read_bytes(fetch().folder / "model.safetensors"), weights);
}

TEST_F(Fetch, WrongBytesAreNotKept) {
  std::string changed = weights, small = "{ \n";
  changed[50'000] ^= 1;
  hub.meddle = [&](const ServerRequest& request, ServerAnswer& answer) {
    if (request.method == "GET" && answer.body == weights) answer.body = changed;
  };
  EXPECT_TRUE(holds(error(), "have hash " + test::sha256_of(changed))) << error();
  EXPECT_FALSE(fs::exists(weights_blob()));
  hub.meddle = [&](const ServerRequest& request, ServerAnswer& answer) {
    if (request.method == "GET" && answer.body == weights) answer.body += "more";
  };
  EXPECT_TRUE(holds(error(), "more than the 100000 bytes")) << error();
  fs::remove_all(cache);
  hub.meddle = [&](const ServerRequest& request, ServerAnswer& answer) {
    if (request.method == "GET" && request.path.ends_with("tokenizer_config.json")) answer.body = small;
  };
  EXPECT_TRUE(holds(error(), "tokenizer_config.json: the bytes that came have hash " + test::git_sha1_of(small)));
}

TEST_F(Fetch, HostileAnswers) {
  const std::string listing = fmt::format(R"({{"sha": "{}", "siblings": [{{"rfilename": "%"}}]}})", commit);
  const auto answer_listing = [&](const std::string& body) {
    hub.meddle = [body](const ServerRequest& request, ServerAnswer& answer) {
      if (request.path.starts_with("/api/")) answer.body = body;
    };
    return error();
  };
  for (const char* name : {"../../x", "/etc/passwd", "a//b", "a/./b", "a\\\\..\\\\b", "", "a\\u0000b"}) {
    std::string body = listing;
    EXPECT_TRUE(holds(answer_listing(body.replace(body.find('%'), 1, name)), "no path below a folder")) << name;
  }
  EXPECT_TRUE(holds(answer_listing("[]"), "not a JSON object"));
  EXPECT_TRUE(holds(answer_listing(std::string(300'000, '[')), "not a JSON object"));
  EXPECT_TRUE(holds(answer_listing(R"({"sha": "../x", "siblings": []})"), "not a commit"));
  EXPECT_TRUE(holds(answer_listing(fmt::format(R"({{"sha": "{}"}})", commit)), "\"siblings\""));
  EXPECT_TRUE(holds(answer_listing(std::string((64 << 20) + 1, ' ')), "more than 67108864 bytes"));

  const auto with_header = [&](const std::string& name, const std::string& value) {
    hub.meddle = [name, value](const ServerRequest& request, ServerAnswer& answer) {
      if (request.path.ends_with("model.safetensors")) answer.headers[name] = value;
    };
    return error();
  };
  EXPECT_TRUE(holds(with_header("X-Linked-Etag", "\"../../../x\""), "cannot name a file"));
  EXPECT_TRUE(holds(with_header("X-Linked-Etag", "\"\""), "cannot name a file"));
  EXPECT_TRUE(holds(with_header("X-Linked-Size", "-5"), "no number of bytes"));
  EXPECT_TRUE(holds(with_header("X-Linked-Size", "99999999999999999999"), "no number of bytes"));
  EXPECT_TRUE(holds(with_header("X-Linked-Size", "4503599627370496"), "4503599.6 GB are to come"));  // 4.5 PB
  EXPECT_TRUE(holds(with_header("X-Repo-Commit", std::string(40, 'c')), "answers with commit"));
  EXPECT_TRUE(holds(with_header("Location", "file:///etc/passwd"), "not a URL of http or https"));
  EXPECT_TRUE(holds(with_header("Location", "gopher://x/"), "not a URL of http or https"));
  hub.meddle = [&](const ServerRequest& request, ServerAnswer& answer) {
    if (request.path.starts_with("/api/")) answer = {302, {{"Location", request.path}}, ""};
  };
  EXPECT_TRUE(holds(error(), "more than 10 redirects"));
  hub.meddle = [&](const ServerRequest&, ServerAnswer& answer) {
    for (int i = 0; i < 300; ++i) answer.headers[fmt::format("X-{}", i)] = std::string(1000, 'x');
  };
  EXPECT_NE(error(), "");
  EXPECT_FALSE(fs::exists(folder() / "snapshots" / commit / "model.safetensors"));
}

TEST_F(Fetch, RenamedRepositories) {  // relative redirects, within the hub
  settings.token = "hf_token";
  hub.meddle = [&](const ServerRequest& request, ServerAnswer& answer) {
    const std::string old = "/old/name/", api = "/api/models/old/name/";
    if (request.path.starts_with(old)) answer = {307, {{"Location", "/org/name/" + request.path.substr(old.size())}}};
    if (request.path.starts_with(api)) {
      answer = {307, {{"Location", "/api/models/org/name/" + request.path.substr(api.size())}}};
    }
  };
  const HubSnapshot snapshot = fetch_model(settings, "old/name", "main", ModelPart::all, {});
  EXPECT_EQ(snapshot.folder, cache / "models--old--name" / "snapshots" / commit);
  EXPECT_EQ(read_bytes(snapshot.folder / "model.safetensors"), weights);
}

TEST_F(Fetch, AnotherProcessFetchesIt) {
  const fs::path locks = cache / ".locks" / "models--org--name";
  fs::create_directories(locks);
  const fs::path lock = locks / (test::sha256_of(weights) + ".lock");
  const int held = ::open(lock.c_str(), O_RDWR | O_CREAT, 0664);
  ASSERT_EQ(::flock(held, LOCK_EX), 0);
  std::atomic<bool> waited = false;
  std::thread other([&] {  // waits, then finds what the holder of the lock made
    const HubSnapshot snapshot = fetch_model(settings, "org/name", "main", ModelPart::all,
                                             {[&](const FetchProgress& p) { waited = waited || p.waiting; }, {}});
    EXPECT_EQ(read_bytes(snapshot.folder / "model.safetensors"), weights);
  });
  while (!waited || hub.hub().count("HEAD", "model.safetensors") == 0) std::this_thread::yield();
  fs::create_directories(folder() / "blobs");
  write_bytes(weights_blob(), weights);
  ::close(held);
  other.join();
  EXPECT_EQ(hub.cdn().count("GET", "/"), 0);
}

TEST_F(Fetch, StopsWhenAskedAndKeepsWhatCame) {
  struct Stop : std::exception {};
  const auto stop = [&](const FetchProgress& p) {
    if (p.file == "model.safetensors" && p.done > 0) throw Stop();
  };
  EXPECT_THROW(fetch_model(settings, "org/name", "main", ModelPart::all, {stop, {}}), Stop);
  EXPECT_GT(fs::file_size(weights_blob(".incomplete")), 0U);
  EXPECT_EQ(read_bytes(fetch().folder / "model.safetensors"), weights);
}

TEST_F(Fetch, FoldersThatCannotBeWritten) {
  write_bytes(cache_folder / "file", "x");
  settings.cache = cache_folder / "file" / "hub";
  EXPECT_TRUE(holds(error(), "cannot write")) << error();
}

TEST(BlobHash, IsGitsAndSha256) {
  EXPECT_EQ(test::git_sha1_of(""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");  // `git hash-object /dev/null`
  EXPECT_EQ(test::git_sha1_of("hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
  EXPECT_EQ(test::git_sha1_of(std::string(1000, 'a')), "a50be72b20f0e3f078d252e8e56b11b4bec67509");  // Python's hashlib
  const TemporaryFolder folder;
  const fs::path file = folder.write("abc", "abc");
  EXPECT_EQ(blob_hash(file, std::string(64, '0'), [] {}),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");  // FIPS 180-4
  EXPECT_EQ(blob_hash(file, "some-other-etag", [] {}), "");
}

}  // namespace
}  // namespace hesper
