#pragma once
// Names on the hub: repositories, revisions, files. All of them end up in URLs and in paths of the cache, so each is
// checked before it is used.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hesper {

enum class RepositoryKind { model, dataset };

struct Repository {
  RepositoryKind kind = RepositoryKind::model;
  std::string id;  // "ORG/NAME"

  std::string cache_folder() const;  // "models--ORG--NAME", its folder in the cache
  std::string api_path() const;      // "api/models/ORG/NAME"
  std::string web_path() const;      // "ORG/NAME", "datasets/ORG/NAME"
};

/// What a repository holds at one commit.
struct RepositoryListing {
  std::string commit;              // 40 hex digits
  std::vector<std::string> files;  // paths with '/', sorted

  bool has(std::string_view file) const;
};

struct ChosenFiles {
  std::vector<std::string> files;
  bool complete =
      true;  // false: something is not listed that others may have left out, and that is missed now and then
};

/// What the server says of one file.
struct HubFile {
  std::string name;    // path in the repository
  std::string commit;  // of the listing
  std::string etag;    // sha256 of a large file's bytes, git's sha1 of a small one's: 64 or 40 hex digits
  int64_t size = 0;    // bytes
};

/// "ORG/NAME": two parts of letters, digits, '-', '_', '.', neither beginning nor ending in '-' or '.', without "--"
/// and
/// "..", at most 96 characters each.
bool is_repository_id(std::string_view text);
/// A branch, tag or commit that can be a path below refs/: no empty, "." or ".." part, at most 255 printable
/// characters.
bool is_revision(std::string_view text);
/// 40 lower-case hex digits.
bool is_commit(std::string_view text);
/// A relative path without empty, "." or ".." parts, backslashes and control characters, at most 1000 bytes.
bool is_file_path(std::string_view text);

/// The answer to GET api/models/ORG/NAME/revision/REV. `where` names it in errors. Throws std::runtime_error, one line,
/// when it is not JSON, has no commit or files, or names a file that is_file_path refuses.
RepositoryListing parse_listing(const std::string& json, const std::string& where);

/// An ETag header as the name of a blob: without W/ and quotes. Throws std::runtime_error where it is no safe file
/// name.
std::string parse_etag(std::string_view header, const std::string& where);
/// Bytes. Throws std::runtime_error where it is no number of 0 .. 2^53.
int64_t parse_size(std::string_view header, const std::string& where);

}  // namespace hesper
