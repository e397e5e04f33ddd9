#include "hub/hub_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "files/atomic_file.h"
#include "files/read_file.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void cannot_write(const fs::path& path, int error) {
  throw std::runtime_error(fmt::format("cannot write {}: {}", path.string(), std::strerror(error)));
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) cannot_write(folder, error.value());
}

}  // namespace

RepositoryListing list_folder(const fs::path& folder, const std::string& commit) {
  RepositoryListing listing{commit, {}};
  std::error_code error, ignored;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (fs::is_regular_file(it->path(), ignored)) {  // follows links: no bytes, no file
      listing.files.push_back(it->path().lexically_relative(folder).string());
    }
  }
  std::sort(listing.files.begin(), listing.files.end());
  return listing;
}

HubCache::HubCache(const fs::path& cache, const Repository& repository)
    : root_(cache), folder_(cache / repository.cache_folder()), locks_(cache / ".locks" / repository.cache_folder()) {}

std::optional<std::string> HubCache::commit_of(const std::string& revision) const {
  if (is_commit(revision)) return revision;
  const fs::path ref = folder_ / "refs" / revision;
  if (!fs::is_regular_file(ref)) return std::nullopt;
  std::string commit = read_file(ref, 1 << 10);
  commit.erase(commit.find_last_not_of(" \r\n") + 1);
  if (!is_commit(commit)) return std::nullopt;
  return commit;
}

bool HubCache::has(const std::string& commit, const std::string& file) const {
  std::error_code ignored;
  return fs::is_regular_file(snapshot(commit) / file, ignored);  // follows the link: no bytes, no file
}

void HubCache::make_folders() const {
  for (const char* name : {"blobs", "refs", "snapshots"}) make_folder(folder_ / name);
  make_folder(locks_);
  const fs::path tag = root_ / "CACHEDIR.TAG";  // tells programs that make backups to leave the folder out
  if (fs::exists(tag)) return;
  write_file_atomically(tag, [](std::ostream& out) { out << "Signature: 8a477f597d28d172789f06886806bc55\n"; });
}

void HubCache::write_ref(const std::string& revision, const std::string& commit) const {
  if (revision == commit || commit_of(revision) == commit) return;
  write_file_atomically(folder_ / "refs" / revision, [&](std::ostream& out) { out << commit; });
}

void HubCache::link(const HubFile& file) const {
  const fs::path pointer = snapshot(file.commit) / file.name;
  make_folder(pointer.parent_path());
  if (has(file.commit, file.name)) return;
  ::unlink(pointer.c_str());  // a link whose blob is gone
  const fs::path target = blob(file.etag).lexically_relative(pointer.parent_path());
  if (::symlink(target.c_str(), pointer.c_str()) != 0 && !has(file.commit, file.name)) cannot_write(pointer, errno);
}

BlobLock::BlobLock(const HubCache& cache, const std::string& etag, const std::function<void()>& while_waiting) {
  const fs::path path = cache.locks_ / (etag + ".lock");
  while (true) {
    descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0664);
    if (descriptor_ < 0) cannot_write(path, errno);
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) {
      struct stat held = {};
      if (::fstat(descriptor_, &held) == 0 && held.st_nlink > 0) return;
    } else if (errno != EWOULDBLOCK && errno != EINTR) {
      const int error = errno;
      ::close(descriptor_);
      throw std::runtime_error(fmt::format("cannot lock {}: {}", path.string(), std::strerror(error)));
    }
    ::close(descriptor_);  // held by another process, or removed by the one that held it
    descriptor_ = -1;
    while_waiting();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

BlobLock::~BlobLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace hesper
