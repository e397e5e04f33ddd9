#include "hub/fetch.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "files/printable.h"
#include "files/read_file.h"
#include "hub/hub_client.h"
#include "hub/model_files.h"

namespace hesper {
namespace {

constexpr size_t max_index_bytes = 64 << 20;

/// The files of one commit, fetched as they are needed.
class Fetcher {
 public:
  Fetcher(const HubSettings& settings, const Repository& repository, const FetchEvents& events)
      : cache_(settings.cache, repository), client_(settings, repository, [this] { report(); }), events_(events) {}

  HubClient& client() { return client_; }

  void fetch(const std::string& commit, const std::string& name) {
    if (cache_.has(commit, name)) return;
    const HubFile file = client_.describe(commit, name);
    cache_.make_folders();
    progress_.file = name;
    progress_.size = file.size;
    progress_.done = 0;
    progress_.waiting = true;
    const BlobLock lock(cache_, file.etag, [this] { report(); });
    progress_.waiting = false;
    std::error_code missing;
    const auto there = static_cast<int64_t>(std::filesystem::file_size(cache_.blob(file.etag), missing));
    if (missing || there != file.size) download(file);
    cache_.link(file);
    progress_.file.clear();
  }

  void finish(const std::string& revision, const std::string& commit) {
    cache_.make_folders();
    cache_.write_ref(revision, commit);
  }

 private:
  void report() { events_.progress(progress_); }

  void download(const HubFile& file) {
    const std::filesystem::path part = cache_.incomplete(file.etag);
    std::error_code ignored;
    const auto there =
        static_cast<int64_t>(std::filesystem::exists(part) ? std::filesystem::file_size(part, ignored) : 0);
    progress_.done = std::min(there, file.size);
    client_.download(file, part, [&](int64_t bytes) {
      progress_.fetched += std::max<int64_t>(bytes - progress_.done, 0);
      progress_.done = bytes;
      report();
    });
    if (::rename(part.c_str(), cache_.blob(file.etag).c_str()) != 0) {
      throw std::runtime_error(
          fmt::format("cannot write {}: {}", cache_.blob(file.etag).string(), std::strerror(errno)));
    }
    ++progress_.files;
    report();
  }

  HubCache cache_;
  HubClient client_;
  const FetchEvents& events_;
  FetchProgress progress_;
};

struct Cached {
  std::optional<HubSnapshot> snapshot;
  bool complete = false;
  std::string lacking;  // why there is no snapshot
};

// What the cache alone can serve.
Cached in_cache(const HubCache& cache, const std::string& revision, const ChooseFiles& choose) {
  const auto commit = cache.commit_of(revision);
  if (!commit || !std::filesystem::is_directory(cache.snapshot(*commit))) return {};
  const std::filesystem::path folder = cache.snapshot(*commit);
  try {
    const ChosenFiles chosen = choose(
        cache.listing(*commit), [&](const std::string& file) { return read_file(folder / file, max_index_bytes); });
    return {HubSnapshot{folder, *commit, chosen.files}, chosen.complete, ""};
  } catch (const std::runtime_error& error) {
    return {std::nullopt, false, error.what()};
  }
}

}  // namespace

HubSnapshot fetch_snapshot(const HubSettings& settings, const Repository& repository, const std::string& revision,
                           const ChooseFiles& choose, const FetchEvents& events) {
  if (!is_repository_id(repository.id)) {
    throw std::invalid_argument(fmt::format("{}: not an id of the hub, ORG/NAME", printable(repository.id)));
  }
  if (!is_revision(revision)) {
    throw std::invalid_argument(fmt::format("{}: not a branch, tag or commit", printable(revision)));
  }
  const HubCache cache(settings.cache, repository);
  if (settings.offline || is_commit(revision)) {
    const Cached cached = in_cache(cache, revision, choose);
    if (cached.snapshot && (cached.complete || settings.offline)) return *cached.snapshot;
    if (settings.offline) {
      throw std::runtime_error(fmt::format(
          "{} at {} is not in the cache {}{}; without --offline and HF_HUB_OFFLINE it would be fetched", repository.id,
          revision, settings.cache.string(), cached.lacking.empty() ? "" : fmt::format(" ({})", cached.lacking)));
    }
  }
  Fetcher fetcher(settings, repository, events);
  try {
    const RepositoryListing listing = fetcher.client().list(revision);
    const auto read = [&](const std::string& file) {
      fetcher.fetch(listing.commit, file);
      return read_file(cache.snapshot(listing.commit) / file, max_index_bytes);
    };
    const std::vector<std::string> files = choose(listing, read).files;
    for (const std::string& file : files) fetcher.fetch(listing.commit, file);
    fetcher.finish(revision, listing.commit);
    return {cache.snapshot(listing.commit), listing.commit, files};
  } catch (const HubUnreachable& error) {
    const Cached cached = in_cache(cache, revision, choose);
    if (!cached.snapshot) throw;
    events.note(fmt::format("{}: taken from the cache, as of commit {}: {}", repository.id, cached.snapshot->commit,
                            error.what()));
    return *cached.snapshot;
  }
}

HubSnapshot fetch_model(const HubSettings& settings, const std::string& id, const std::string& revision, ModelPart part,
                        const FetchEvents& events) {
  const auto choose = [&](const RepositoryListing& listing, const ReadListed& read) -> ChosenFiles {
    std::vector<std::string> files = tokenizer_files(listing);
    const bool tokenizer = !files.empty();
    if (part == ModelPart::tokenizer && tokenizer) return {files};
    const std::string weights = weights_file(listing, id);
    files.push_back(weights);
    if (weights.ends_with(".gguf")) return {files};
    if (part == ModelPart::tokenizer) {
      throw std::runtime_error(
          fmt::format("{}: no tokenizer: looked for tokenizer.json, vocab.json with merges.txt, tokenizer.model", id));
    }
    if (!listing.has("config.json")) throw std::runtime_error(fmt::format("{}: no config.json", id));
    files.insert(files.begin(), "config.json");
    if (weights.ends_with(".index.json")) {
      const auto shards = shards_of(read(weights), listing, fmt::format("{}/{}", id, weights));
      files.insert(files.end(), shards.begin(), shards.end());
    }
    return {files, tokenizer};
  };
  return fetch_snapshot(settings, {RepositoryKind::model, id}, revision, choose, events);
}

HubSnapshot fetch_dataset(const HubSettings& settings, const std::string& id, const DatasetRequest& request,
                          const FetchEvents& events) {
  const auto choose = [&](const RepositoryListing& listing, const ReadListed&) {
    return choose_dataset_files(listing, request, id);
  };
  return fetch_snapshot(settings, {RepositoryKind::dataset, id}, "main", choose, events);
}

}  // namespace hesper
