#include "hub/hub_client.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <utility>

#include "files/printable.h"
#include "hub/blob_hash.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;

constexpr size_t max_listing_bytes = 64 << 20;
constexpr int max_redirects = 10;

bool is_out_of_order(long status) { return status == 429 || status >= 500; }

struct Descriptor {
  int number;
  ~Descriptor() { ::close(number); }
};

[[noreturn]] void cannot_write(const fs::path& path, int error) {
  if (error == ENOSPC || error == EDQUOT) {
    throw std::runtime_error(fmt::format(
        "cannot write {}: {}; make room and run again (it goes on from there), or name another place with --cache-dir",
        path.string(), std::strerror(error)));
  }
  throw std::runtime_error(fmt::format("cannot write {}: {}", path.string(), std::strerror(error)));
}

int64_t size_of(int descriptor, const fs::path& path) {
  struct stat status = {};
  if (::fstat(descriptor, &status) != 0) cannot_write(path, errno);
  return status.st_size;
}

void truncate(int descriptor, const fs::path& path) {
  if (::ftruncate(descriptor, 0) != 0 || ::lseek(descriptor, 0, SEEK_SET) != 0) cannot_write(path, errno);
}

void append(int descriptor, std::string_view bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor, bytes.data(), bytes.size());
    if (count < 0 && errno != EINTR) cannot_write(path, errno);
    if (count > 0) bytes.remove_prefix(static_cast<size_t>(count));
  }
}

std::string say_size(double bytes) {
  return bytes < 1e9 ? fmt::format("{:.1f} MB", bytes / 1e6) : fmt::format("{:.1f} GB", bytes / 1e9);
}

void check_room(const fs::path& path, int64_t missing) {
  struct statvfs status = {};
  if (::statvfs(path.parent_path().c_str(), &status) != 0) return;
  const auto free = static_cast<double>(status.f_bavail) * static_cast<double>(status.f_frsize);
  if (free >= static_cast<double>(missing)) return;
  throw std::runtime_error(
      fmt::format("{}: {} are to come, {} are free; make room, or name another place with --cache-dir",
                  path.parent_path().string(), say_size(static_cast<double>(missing)), say_size(free)));
}

}  // namespace

HubClient::HubClient(HubSettings settings, Repository repository, WhileWaiting while_waiting)
    : settings_(std::move(settings)),
      repository_(std::move(repository)),
      origin_(origin_of(settings_.endpoint)),
      while_waiting_(std::move(while_waiting)),
      connection_(settings_.timeout, while_waiting_) {}

std::string HubClient::file_url(const std::string& commit, const std::string& file) const {
  return fmt::format("{}/{}/resolve/{}/{}", settings_.endpoint, repository_.web_path(), commit,
                     percent_encoded(file, true));
}

// Redirects are followed wherever they lead, but the token stays with the endpoint. HEAD stops where one leads to
// another host and speaks of the file in its own headers (X-Linked-Etag): that host's would speak of its copy.
HttpAnswer HubClient::ask(Method method, std::string url, const std::vector<std::string>& headers,
                          const HttpSink& sink) {
  HttpAnswer first;  // X-Repo-Commit and X-Linked-Etag stand in the answer of the first host that knows the file
  for (int redirects = 0; redirects <= max_redirects; ++redirects) {
    const bool home = origin_of(url) == origin_;
    std::vector<std::string> lines = headers;
    lines.emplace_back("Accept-Encoding: identity");  // sizes are those of the files
    if (home && !settings_.token.empty()) lines.push_back("Authorization: Bearer " + settings_.token);
    HttpAnswer answer = method == Method::head ? connection_.head(url, lines) : connection_.get(url, lines, sink);
    for (const auto& [name, value] : first.headers) {
      if (name.starts_with("x-linked-") || name == "x-repo-commit") answer.headers[name] = value;
    }
    if (!answer.redirects()) return answer;
    const std::string next = resolve_url(url, answer.header("location"));
    if (url.starts_with("https:") && !next.starts_with("https:")) {
      throw std::runtime_error(fmt::format("{}: redirects from https to {}: refused", origin_, origin_of(next)));
    }
    if (method == Method::head && origin_of(next) != origin_ && !answer.header("x-linked-etag").empty()) return answer;
    first = std::move(answer);
    url = next;
  }
  throw std::runtime_error(fmt::format("{}: more than {} redirects", url, max_redirects));
}

void HubClient::pause(int failures) {
  using Clock = std::chrono::steady_clock;
  const auto until =
      Clock::now() + std::chrono::duration<double>(settings_.retry_pause * (1 << std::min(failures - 1, 5)));
  while (Clock::now() < until) {
    while_waiting_();
    std::this_thread::sleep_for(
        std::min(std::chrono::duration<double>(until - Clock::now()), std::chrono::duration<double>(0.1)));
  }
}

HttpAnswer HubClient::ask_patiently(Method method, const std::string& url) {
  for (int failures = 1;; ++failures) {
    std::string body;
    const HttpSink sink = [&](const HttpAnswer&, std::string_view bytes) {
      if (body.size() + bytes.size() > max_listing_bytes) {
        throw std::runtime_error(fmt::format("{}: an answer of more than {} bytes", url, max_listing_bytes));
      }
      body += bytes;
    };
    std::string trouble, advice = "check the network";
    try {
      HttpAnswer answer = ask(method, url, {}, sink);
      if (answer.good()) answer.body = std::move(body);
      if (!is_out_of_order(answer.status)) return answer;
      trouble = fmt::format("{}: status {}", url, answer.status);
      advice = answer.status == 429 ? "too many requests: try again in some minutes" : "try again later";
    } catch (const HttpFailure& failure) {
      trouble = failure.what();
    }
    if (failures >= 2) {  // soon, for the cache may do instead
      throw HubUnreachable(fmt::format("{}; {}, or use --offline with what is in the cache", trouble, advice));
    }
    pause(failures);
  }
}

RepositoryListing HubClient::list(const std::string& revision) {
  const std::string url =
      fmt::format("{}/{}/revision/{}", settings_.endpoint, repository_.api_path(), percent_encoded(revision));
  const HttpAnswer answer = ask_patiently(Method::get, url);
  if (!answer.good()) refuse(answer, fmt::format("revision {}", revision));
  return parse_listing(answer.body, url);
}

HubFile HubClient::describe(const std::string& commit, const std::string& file) {
  const std::string url = file_url(commit, file);
  const HttpAnswer answer = ask_patiently(Method::head, url);
  if (!answer.good() && !answer.redirects()) refuse(answer, file);
  if (const std::string said = answer.header("x-repo-commit"); !said.empty() && said != commit) {
    throw std::runtime_error(fmt::format("{}: the server answers with commit {}", url, printable(said)));
  }
  const bool linked = !answer.header("x-linked-etag").empty();
  const std::string size = answer.header(linked ? "x-linked-size" : "content-length");
  return {file, commit, parse_etag(answer.header(linked ? "x-linked-etag" : "etag"), url), parse_size(size, url)};
}

// One GET of what is missing. 206: from there on. 200: the server knows no ranges, and sends all of it.
void HubClient::transfer(const HubFile& file, int descriptor, const fs::path& path, const OnBytes& on_bytes) {
  int64_t have = size_of(descriptor, path);
  std::vector<std::string> headers;
  if (have > 0) headers.push_back(fmt::format("Range: bytes={}-", have));
  const std::string range = fmt::format("bytes {}-{}/{}", have, file.size - 1, file.size);
  bool begun = false;
  const HttpAnswer answer =
      ask(Method::get, file_url(file.commit, file.name), headers, [&](const HttpAnswer& head, std::string_view bytes) {
        if (!begun && head.status == 206 && head.header("content-range") != range) {
          throw std::runtime_error(fmt::format("{}: asked for {}, the server sends {}", file.name, range,
                                               printable(head.header("content-range"))));
        }
        if (!begun && head.status != 206 && have > 0) {
          truncate(descriptor, path);
          have = 0;
        }
        begun = true;
        if (static_cast<int64_t>(bytes.size()) > file.size - have) {
          truncate(descriptor, path);
          throw std::runtime_error(fmt::format("{}: the server sends more than the {} bytes it announced; nothing kept",
                                               file.name, file.size));
        }
        append(descriptor, bytes, path);
        have += static_cast<int64_t>(bytes.size());
        on_bytes(have);
      });
  if (answer.status == 416) truncate(descriptor, path);  // what is there is no beginning of that file
  if (is_out_of_order(answer.status) || answer.status == 416) {
    throw HttpFailure(fmt::format("{}: status {}", origin_, answer.status));
  }
  if (!answer.good()) refuse(answer, file.name);
  if (have < file.size) {
    throw HttpFailure(fmt::format("{}: the connection ended after {} of {} bytes", origin_, have, file.size));
  }
}

void HubClient::download(const HubFile& file, const fs::path& path, const OnBytes& on_bytes) {
  const Descriptor descriptor{::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666)};
  if (descriptor.number < 0) cannot_write(path, errno);
  if (size_of(descriptor.number, path) > file.size) truncate(descriptor.number, path);
  check_room(path, file.size - size_of(descriptor.number, path));
  int failures = 0;
  for (int64_t have = size_of(descriptor.number, path); have < file.size;) {
    try {
      transfer(file, descriptor.number, path, on_bytes);
      have = file.size;
    } catch (const HttpFailure& failure) {
      const int64_t now = size_of(descriptor.number, path);
      failures = now > have ? 1 : failures + 1;
      have = now;
      if (failures >= settings_.attempts) {
        throw HubUnreachable(fmt::format("{}: {} of {} bytes, then {}; run again to go on from there", file.name, have,
                                         file.size, failure.what()));
      }
      pause(failures);
    }
  }
  if (::fdatasync(descriptor.number) != 0) cannot_write(path, errno);
  const std::string hash = blob_hash(path, file.etag, while_waiting_);
  if (!hash.empty() && hash != file.etag) {
    ::unlink(path.c_str());
    throw std::runtime_error(
        fmt::format("{}: the bytes that came have hash {}, the server promised {}; removed, run again to fetch it anew",
                    file.name, hash, file.etag));
  }
}

void HubClient::refuse(const HttpAnswer& answer, const std::string& what) {
  const std::string web = fmt::format("{}/{}", settings_.endpoint, repository_.web_path());
  const std::string code = answer.header("x-error-code");
  const bool token = !settings_.token.empty();
  const std::string login = "set HF_TOKEN to a token of yours, or log in with `hf auth login`";
  std::string advice;
  if (code == "GatedRepo") {
    advice = token ? fmt::format("gated, and the token of {} has no access: accept its terms on that page",
                                 settings_.token_source)
                   : fmt::format("gated: accept its terms on that page, then {}", login);
  } else if (code == "RevisionNotFound") {
    advice = fmt::format("no {}: --revision takes a branch, tag or commit of that page", what);
  } else if (code == "EntryNotFound") {
    advice = fmt::format("no file {}", printable(what));
  } else if (answer.status == 401) {
    advice = token ? fmt::format("the token of {} is not valid, or there is no such repository", settings_.token_source)
                   : fmt::format("no such repository, or a private one: check the name, or {}", login);
  } else if (answer.status == 403) {
    advice = token ? fmt::format("the token of {} may not read this repository", settings_.token_source)
                   : fmt::format("access denied: {}", login);
  } else if (answer.status == 404) {
    advice = fmt::format("no such repository or {}: check the name", what);
  } else {
    advice = fmt::format("{}: not an answer to work with", what);
  }
  throw std::runtime_error(fmt::format("{}: {} (status {})", web, advice, answer.status));
}

}  // namespace hesper
