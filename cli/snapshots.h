#pragma once
// The snapshot of a command's run: what was left by one that was stopped, and where the next one goes.
#include <fmt/format.h>

#include "console.h"
#include "flags.h"
#include "processes.h"
#include "run/memory.h"
#include "run/snapshot.h"

namespace hesper::cli {

/// Throws std::invalid_argument for a --snapshot-every or --parts that says nothing, before anything is made.
void check_snapshots(const Flags& flags);

/// With what is in `file` as Snapshots::from, unless --overwrite begins anew. A damaged file is told and left out, with
/// --resume refused. console outlives the snapshots. Throws as Snapshots::load does; std::invalid_argument for --resume
/// without a file.
Snapshots open_snapshots(const Flags& flags, const std::filesystem::path& file,
                         const Snapshots::Configuration& configuration, Console& console);

/// The model's hash, which takes a while, where the job has it not yet.
void identify(RunJob& job, const Model& model);

/// NAME.snapshot, or NAME.2of4.part.
std::filesystem::path state_file(const Flags& flags, const std::filesystem::path& snapshot);
/// What merge needs to know of a part; null of a whole run.
nlohmann::json origin_of(const Flags& flags, const std::filesystem::path& snapshot,
                         const std::vector<std::string>& command_line);

/// The snapshots of a job beside its results, or its part. The job outlives them. They and the record need the model's
/// hash, which begins here beside the run.
template <class Job>
Snapshots open_snapshots(const Flags& flags, const std::filesystem::path& folder, Job& job, const Model& model,
                         Console& console) {
  const auto of_job = [&job, &model] {
    identify(job, model);
    return configuration(job);
  };
  if (process_rank() == 0) model.checkpoint.begin_sha256();
  const std::filesystem::path file = snapshot_file(folder, job);
  Snapshots out = open_snapshots(flags, state_file(flags, file), of_job, console);
  out.origin = origin_of(flags, std::filesystem::relative(file, folder), job.command_line);
  return out;
}

/// What a run is told by this process: progress to the console, interrupts, its snapshots and its part.
RunControl control_of(const Flags& flags, Console& console, Snapshots& snapshots, Ranks* ranks);

/// run(), or nothing where this process has done its part only, which is told. What the run has freed goes back, so
/// that tables and pictures come on top of the results alone.
template <class Run>
auto result_of(Console& console, Run run) -> std::optional<decltype(run())> {
  try {
    std::optional result = run();
    release_free_memory();
    console.end_progress();
    return result;
  } catch (const PartDone& done) {
    console.line(fmt::format("{:<12}{}; hesper merge joins all of them", "wrote part", done.what()));
    console.event("part", {{"file", done.what()}});
    return std::nullopt;
  }
}

}  // namespace hesper::cli
