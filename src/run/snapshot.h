#pragma once
// The state of an unfinished run on disk, so that the same command goes on where the run stood.
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "run/clock.h"
#include "run/saved_state.h"

namespace hesper {

class Snapshots {
 public:
  using Configuration = std::function<nlohmann::json()>;  // may be dear: asked for once, when it is needed
  using OnTrouble = std::function<void(const std::string&)>;

  /// Nothing is read or written yet. every: seconds between two snapshots.
  Snapshots(std::filesystem::path file, Configuration configuration, double every, OnTrouble on_trouble = {});

  /// Reads the file; nullopt where there is none. Throws std::invalid_argument for a run of another configuration or
  /// version (naming the first difference), std::runtime_error for a file that is damaged or no snapshot.
  std::optional<RunState> load();
  /// A state to begin with, for the run that is handed this object and takes it.
  std::optional<RunState> from;
  /// Loaded and saved with every state.
  using Before = SavedState::Before;
  Before before;
  /// Saved with every state.
  nlohmann::json origin;

  bool due() const { return seconds_since(last_) >= every_; }
  /// Whole or not at all. A file that cannot be written is told to on_trouble, and false comes back.
  bool save(const RunState& state);
  /// After the results are written, or to begin anew.
  void remove();
  const std::filesystem::path& file() const { return file_; }

 private:
  const nlohmann::json& configuration();

  std::filesystem::path file_;
  Configuration make_configuration_;
  std::optional<nlohmann::json> configuration_;
  double every_;
  OnTrouble on_trouble_;
  Clock::time_point last_ = Clock::now();
};

}  // namespace hesper
