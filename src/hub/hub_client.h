#pragma once
// A repository on the hub, as its server tells of it and hands out its files.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "hub/http.h"
#include "hub/hub_settings.h"
#include "hub/repository.h"

namespace hesper {

/// The server cannot be reached or is out of order: a copy in the cache will do. One line that says what to do.
struct HubUnreachable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Bytes of a file that are there so far; called while they come, may throw (to stop).
using OnBytes = std::function<void(int64_t bytes)>;

class HubClient {
 public:
  /// `while_waiting` is called several times a second while the network is waited for; may throw.
  HubClient(HubSettings settings, Repository repository, WhileWaiting while_waiting);

  // All throw HubUnreachable, and std::runtime_error (one line, what to do) where the server refuses or tells nonsense.
  /// `revision`: branch, tag or commit.
  RepositoryListing list(const std::string& revision);
  HubFile describe(const std::string& commit, const std::string& file);
  /// Fills `path`, going on behind what it holds already, until all bytes are there and their hash is the promised one.
  /// Broken connections are taken up again. A file with the wrong hash is removed.
  void download(const HubFile& file, const std::filesystem::path& path, const OnBytes& on_bytes);

 private:
  enum class Method { head, get };
  HttpAnswer ask(Method method, std::string url, const std::vector<std::string>& headers, const HttpSink& sink);
  HttpAnswer ask_patiently(Method method, const std::string& url);
  void transfer(const HubFile& file, int descriptor, const std::filesystem::path& path, const OnBytes& on_bytes);
  void pause(int failures);
  [[noreturn]] void refuse(const HttpAnswer& answer, const std::string& what);
  std::string file_url(const std::string& commit, const std::string& file) const;

  HubSettings settings_;
  Repository repository_;
  std::string origin_;  // of the endpoint: the only one that sees the token
  WhileWaiting while_waiting_;
  HttpConnection connection_;
};

}  // namespace hesper
