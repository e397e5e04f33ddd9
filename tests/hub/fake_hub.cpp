#include "fake_hub.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <span>

#include "files/digest.h"
#include "hub/blob_hash.h"
#include "temporary_folder.h"

namespace hesper::test {
namespace {

// All bytes, or those of a range "bytes=N-".
ServerAnswer with_bytes(const std::string& bytes, const ServerRequest& request) {
  const std::string range = request.header("range");
  if (range.empty()) return {200, {{"Accept-Ranges", "bytes"}}, bytes};
  const size_t from = std::stoull(range.substr(range.find('=') + 1));
  if (from >= bytes.size()) return {416, {}, ""};
  return {206,
          {{"Content-Range", fmt::format("bytes {}-{}/{}", from, bytes.size() - 1, bytes.size())}},
          bytes.substr(from)};
}

}  // namespace

std::string sha256_of(const std::string& bytes) { return sha256_hex(std::as_bytes(std::span(bytes))); }

std::string git_sha1_of(const std::string& bytes) {
  const TemporaryFolder folder;
  return blob_hash(folder.write("bytes", bytes), std::string(40, '0'), [] {});
}

FakeHub::FakeHub()
    : cdn_([this](const ServerRequest& request) {
        for (const auto& [id, repository] : repositories) {
          for (const std::string& name : repository.large) {
            const std::string& bytes = repository.files.at(name);
            if (request.path == fmt::format("/{}", sha256_of(bytes)))
              return meddled(request, with_bytes(bytes, request));
          }
        }
        return ServerAnswer{404};
      }),
      hub_([this](const ServerRequest& request) { return meddled(request, answer(request)); }) {}

HubSettings FakeHub::settings(const std::filesystem::path& cache) const {
  HubSettings settings;
  settings.endpoint = url();
  settings.cache = cache;
  settings.timeout = 1;
  settings.retry_pause = 0;
  return settings;
}

ServerAnswer FakeHub::meddled(const ServerRequest& request, ServerAnswer answer) const {
  if (meddle) meddle(request, answer);
  return answer;
}

ServerAnswer FakeHub::answer(const ServerRequest& request) {
  for (const auto& [id, repository] : repositories) {
    const std::string api = fmt::format("/api/{}{}/revision/", id.starts_with("datasets/") ? "" : "models/", id);
    const std::string resolve_path = fmt::format("/{}/resolve/", id);
    if (request.path.starts_with(api)) return list(repository, request.path.substr(api.size()));
    if (!request.path.starts_with(resolve_path)) continue;
    if (repository.gated && request.header("authorization") != fmt::format("Bearer {}", token)) {
      return {request.header("authorization").empty() ? 401 : 403, {{"X-Error-Code", "GatedRepo"}}, ""};
    }
    return resolve(repository, request.path.substr(resolve_path.size()), request);
  }
  return {401, {{"X-Error-Code", "RepoNotFound"}}, R"({"error": "Repository not found"})"};
}

ServerAnswer FakeHub::list(const FakeRepository& repository, const std::string& revision) const {
  if (!repository.revisions.contains(revision) && revision != repository.commit) {
    return {404, {{"X-Error-Code", "RevisionNotFound"}}, ""};
  }
  nlohmann::json siblings = nlohmann::json::array();
  for (const auto& [name, bytes] : repository.files) siblings.push_back({{"rfilename", name}});
  const nlohmann::json json = {{"id", "x/y"}, {"sha", repository.commit}, {"siblings", siblings}};
  return {200, {{"Content-Type", "application/json"}}, json.dump()};
}

ServerAnswer FakeHub::resolve(const FakeRepository& repository, const std::string& path,
                              const ServerRequest& request) const {
  const size_t slash = path.find('/');
  const std::string revision = path.substr(0, slash), name = path.substr(slash + 1);
  if (!repository.revisions.contains(revision) && revision != repository.commit) {
    return {404, {{"X-Error-Code", "RevisionNotFound"}}, ""};
  }
  const auto file = repository.files.find(name);
  if (file == repository.files.end()) return {404, {{"X-Error-Code", "EntryNotFound"}}, ""};
  const std::string& bytes = file->second;
  if (repository.large.contains(name)) {
    const std::string sha = sha256_of(bytes);
    return {302,
            {{"X-Repo-Commit", repository.commit},
             {"X-Linked-Etag", fmt::format("\"{}\"", sha)},
             {"X-Linked-Size", std::to_string(bytes.size())},
             {"Location", fmt::format("{}/{}", cdn_.url("localhost"), sha)}},
            "moved"};
  }
  ServerAnswer answer = with_bytes(bytes, request);
  answer.headers["X-Repo-Commit"] = repository.commit;
  answer.headers["ETag"] = fmt::format("\"{}\"", git_sha1_of(bytes));
  return answer;
}

}  // namespace hesper::test
