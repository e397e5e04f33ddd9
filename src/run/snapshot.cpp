#include "run/snapshot.h"

#include <fmt/format.h>

#include <stdexcept>

#include "run/configuration.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// Temporaries of writers that were killed.
void remove_temporaries(const fs::path& file) {
  std::error_code error;
  const fs::path folder = file.parent_path().empty() ? fs::path(".") : file.parent_path();
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    if (entry->path().filename().string().starts_with(file.filename().string() + ".tmp-")) {
      std::error_code ignored;
      fs::remove(entry->path(), ignored);
    }
}

}  // namespace

Snapshots::Snapshots(fs::path file, Configuration configuration, double every, OnTrouble on_trouble)
    : file_(std::move(file)),
      make_configuration_(std::move(configuration)),
      every_(every),
      on_trouble_(std::move(on_trouble)) {}

const json& Snapshots::configuration() {
  if (!configuration_) {
    configuration_ = make_configuration_();
    (*configuration_)["version"] = HESPER_VERSION;
  }
  return *configuration_;
}

std::optional<RunState> Snapshots::load() {
  remove_temporaries(file_);
  std::error_code error;
  if (!fs::exists(file_, error)) return std::nullopt;
  SavedState saved = read_state(file_);
  if (const std::string difference = first_difference(saved.configuration, configuration()); !difference.empty())
    throw std::invalid_argument(
        fmt::format("{}: snapshot of a run with {}; --overwrite begins anew", file_.string(), difference));
  before = std::move(saved.before);
  return std::move(saved.state);
}

bool Snapshots::save(const RunState& state) {
  last_ = Clock::now();
  try {
    write_state(file_, {configuration(), origin, state, before});
  } catch (const std::runtime_error& error) {
    if (on_trouble_) on_trouble_(error.what());
    return false;
  }
  return true;
}

void Snapshots::remove() {
  std::error_code ignored;
  fs::remove(file_, ignored);
  remove_temporaries(file_);
}

}  // namespace hesper
