#pragma once
// One repository in the cache that huggingface_hub keeps, as it keeps it:
//   CACHE/models--ORG--NAME/refs/REVISION                 the commit a branch or tag was at
//   CACHE/models--ORG--NAME/blobs/ETAG                    the bytes (ETAG.incomplete while they come)
//   CACHE/models--ORG--NAME/snapshots/COMMIT/PATH         -> ../../blobs/ETAG
//   CACHE/.locks/models--ORG--NAME/ETAG.lock              held (flock) by who fetches that blob
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "hub/repository.h"

namespace hesper {

/// All files below a folder, as a repository lists its own.
RepositoryListing list_folder(const std::filesystem::path& folder, const std::string& commit);

class HubCache {
 public:
  HubCache(const std::filesystem::path& cache, const Repository& repository);

  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path snapshot(const std::string& commit) const { return folder_ / "snapshots" / commit; }
  std::filesystem::path blob(const std::string& etag) const { return folder_ / "blobs" / etag; }
  std::filesystem::path incomplete(const std::string& etag) const { return folder_ / "blobs" / (etag + ".incomplete"); }

  /// The commit that `revision` stood for when it was last asked; `revision` itself where it is one.
  std::optional<std::string> commit_of(const std::string& revision) const;
  /// Whether the snapshot has that file, bytes and all.
  bool has(const std::string& commit, const std::string& file) const;
  /// The files of a snapshot that are there.
  RepositoryListing listing(const std::string& commit) const { return list_folder(snapshot(commit), commit); }

  /// These three throw std::runtime_error "cannot write PATH: reason".
  void make_folders() const;
  void write_ref(const std::string& revision, const std::string& commit) const;
  /// snapshots/COMMIT/PATH -> the blob.
  void link(const HubFile& file) const;

 private:
  friend class BlobLock;
  std::filesystem::path root_, folder_, locks_;
};

/// Held while a blob is fetched, against other processes, huggingface_hub's among them. The file stays behind.
class BlobLock {
 public:
  /// Waits until the lock is free; `while_waiting` is called ten times a second and may throw.
  BlobLock(const HubCache& cache, const std::string& etag, const std::function<void()>& while_waiting);
  ~BlobLock();
  BlobLock(const BlobLock&) = delete;
  BlobLock& operator=(const BlobLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace hesper
