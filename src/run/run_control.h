#pragma once
// What a run is told from outside and tells in return: the same for all commands.
#include <cstdint>
#include <functional>
#include <stdexcept>

#include "run/ranks.h"
#include "run/snapshot.h"

namespace hesper {

/// What has been done; called after every step.
struct Progress {
  int64_t units = 0, done = 0;
  double products = 0;  // columns x windows done
  double seconds = 0;   // since the first unit began
  double bar = 0;       // of an estimate: largest relative error after the last round; 0: not known yet
};
using OnProgress = std::function<void(const Progress&)>;

/// Called between steps: true stops the run with Interrupted.
using ShouldStop = std::function<bool()>;
struct Interrupted : std::runtime_error {
  Interrupted() : runtime_error("interrupted, nothing was written") {}
  explicit Interrupted(const std::filesystem::path& snapshot)
      : runtime_error("interrupted, snapshot saved: " + snapshot.string() + "; the same command goes on") {}
};

/// A share of a run's items: part `number` (1, 2, ..) of `of`, in whole batches one after another.
struct Part {
  int64_t number = 1, of = 1;
  bool whole() const { return of == 1; }
};
/// Thrown where a process has done its part: the sums are in the file, somebody else makes the result.
struct PartDone : std::runtime_error {
  explicit PartDone(const std::filesystem::path& file) : runtime_error(file.string()) {}
};

struct RunControl {
  OnProgress on_progress = {};
  ShouldStop stop = {};
  /// Where the state goes every so often and when `stop` says so; snapshots->from is where the run begins. Its result
  /// is bit for bit that of a run which was not stopped.
  Snapshots* snapshots = nullptr;
  /// Other than the whole: the run ends with PartDone, its sums in snapshots->file(), which merge_parts joins.
  Part part = {};
  /// The processes that share the run's items, with a snapshot between windows: where it is not rank 0, the run ends
  /// with PartDone. A later run may have another number of them.
  Ranks* ranks = nullptr;
  /// Another run of the same ranks follows this one.
  bool more = false;
  /// What a caller adds up beside the run, from what it is handed: part of the state.
  NamedTensors beside = {};

  /// What the items are shared by, for a refusal: "--parts 1/4", "WORLD_SIZE 4"; empty where this process has them all.
  std::string shared_by() const;
  /// What rank 0 finds, known to all ranks: the others wait for it. Where `find` throws, they end with Interrupted.
  nlohmann::json decided(const std::function<nlohmann::json()>& find) const;
};

}  // namespace hesper
