#pragma once
// Files of the hub as a folder on this machine: out of the cache, or fetched into it.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "hub/dataset_files.h"
#include "hub/hub_cache.h"
#include "hub/hub_settings.h"

namespace hesper {

struct FetchProgress {
  std::string file;      // "" while nothing is being fetched
  int64_t done = 0;      // bytes of it that are there
  int64_t size = 0;      // bytes of it
  int64_t fetched = 0;   // bytes that came over the network so far, of all files
  int64_t files = 0;     // files fetched so far
  bool waiting = false;  // another process fetches this file
};

struct FetchEvents {
  std::function<void(const FetchProgress&)> progress = [](const FetchProgress&) {};  // often; may throw, to stop
  std::function<void(const std::string&)> note = [](const std::string&) {};          // what the user may want to know
};

struct HubSnapshot {
  std::filesystem::path folder;  // CACHE/models--ORG--NAME/snapshots/COMMIT
  std::string commit;
  std::vector<std::string> files;  // that were chosen, as paths below the folder
};

/// Says which files are wanted of those listed; `read` gives the text of one of them (fetched for it), at most 64 MiB.
/// Throws std::runtime_error where a listing does not have what is needed: a listing of the cache is then not enough.
using ReadListed = std::function<std::string(const std::string& file)>;
using ChooseFiles = std::function<ChosenFiles(const RepositoryListing& listing, const ReadListed& read)>;

/// The chosen files of a repository at `revision` (branch, tag or commit). Nothing is asked of the network with
/// settings.offline, or where the cache holds a commit's files already; where the network fails and the cache holds the
/// files of the revision's last known commit, those are taken, with a note. Throws std::invalid_argument for a bad id
/// or revision, std::runtime_error (one line, what to do) otherwise.
HubSnapshot fetch_snapshot(const HubSettings& settings, const Repository& repository, const std::string& revision,
                           const ChooseFiles& choose, const FetchEvents& events);

enum class ModelPart { all, tokenizer };
/// The files of model_files.h. A tokenizer that the repository lacks is not missed when its weights are there.
HubSnapshot fetch_model(const HubSettings& settings, const std::string& id, const std::string& revision, ModelPart part,
                        const FetchEvents& events);
/// The files of dataset_files.h, at main.
HubSnapshot fetch_dataset(const HubSettings& settings, const std::string& id, const DatasetRequest& request,
                          const FetchEvents& events);

}  // namespace hesper
