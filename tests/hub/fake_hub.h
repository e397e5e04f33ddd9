#pragma once
// Speaks enough of the hub's API: listings, HEAD and GET of resolve with ranges, redirects of large files to another
// host, the errors of gated and missing repositories. What it holds and how it misbehaves is the test's.
#include <map>
#include <set>
#include <string>

#include "hub/hub_settings.h"
#include "test_server.h"

namespace hesper::test {

struct FakeRepository {
  std::string commit = std::string(40, 'a');
  std::map<std::string, std::string> files;  // name -> bytes
  std::set<std::string> large;               // sent by the other host, named by sha256
  std::set<std::string> revisions = {"main"};
  bool gated = false;
};

class FakeHub {
 public:
  FakeHub();

  std::map<std::string, FakeRepository> repositories;  // "ORG/NAME", "datasets/ORG/NAME"
  std::string token;                                   // that opens gated repositories
  /// Changes an answer on its way out; both servers' .
  std::function<void(const ServerRequest&, ServerAnswer&)> meddle;

  /// Settings of a client of this hub: no pause between attempts, one second of patience.
  HubSettings settings(const std::filesystem::path& cache) const;
  std::string url() const { return hub_.url(); }
  const TestServer& hub() const { return hub_; }
  const TestServer& cdn() const { return cdn_; }

 private:
  ServerAnswer answer(const ServerRequest& request);
  ServerAnswer list(const FakeRepository& repository, const std::string& revision) const;
  ServerAnswer resolve(const FakeRepository& repository, const std::string& path, const ServerRequest& request) const;
  ServerAnswer meddled(const ServerRequest& request, ServerAnswer answer) const;

  TestServer cdn_;  // "/SHA256"
  TestServer hub_;
};

std::string sha256_of(const std::string& bytes);
std::string git_sha1_of(const std::string& bytes);

}  // namespace hesper::test
