#pragma once
// The state of an unfinished run on disk, so that the same command goes on where the run stood. One safetensors file:
// the accumulators as tensors, the rest as metadata, a SHA-256 over all of it.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "hessian/named_tensors.h"
#include "ops/op.h"
#include "run/clock.h"

namespace hesper {

struct RunState {
  nlohmann::json plan;   // what the run's planner chose (plan_choices); who goes on keeps it
  nlohmann::json stage;  // of a run of ordered stages: where it stands, beside the tensors
  double seconds = 0;
  int64_t first = 0, end = 0, steps = 0;  // items [first, end) of the run are this one's, so many steps each
  NamedTensors tensors;                   // any type and place; fp64 in the file

  /// Throws std::runtime_error where the state has no such tensor of this shape.
  const Tensor& tensor(const std::string& name, at::IntArrayRef shape) const;
};

/// A state as a file has it, with what it belongs to.
struct SavedState {
  nlohmann::json configuration;
  nlohmann::json origin;  // of a part: the command that it is a part of (Snapshots::origin)
  RunState state;
  struct Before {
    nlohmann::json note;
    NamedTensors tensors;
  } before;  // what runs that are over have left, where several go in turn
};

/// Throws std::runtime_error for a file that is damaged or no snapshot.
SavedState read_state(const std::filesystem::path& file);
/// Whole or not at all; throws std::runtime_error where it cannot be written.
void write_state(const std::filesystem::path& file, const SavedState& saved);

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
