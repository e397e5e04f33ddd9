#include "snapshots.h"

#include <fmt/format.h>

#include <stdexcept>

#include "interrupt.h"
#include "values.h"

namespace hesper::cli {

void check_snapshots(const Flags& flags) {
  parse_seconds("--snapshot-every", flags.snapshot_every);
  const Part part = parse_part("--parts", flags.parts);
  if (!part.whole() && rank_place())
    throw std::invalid_argument(fmt::format("--parts {}: not with many processes (WORLD_SIZE)", flags.parts));
}

Snapshots open_snapshots(const Flags& flags, const std::filesystem::path& file,
                         const Snapshots::Configuration& configuration, Console& console) {
  Snapshots out(file, configuration, parse_seconds("--snapshot-every", flags.snapshot_every),
                [&console](const std::string& trouble) { console.note("no snapshot: " + trouble); });
  if (process_rank() > 0) return out;  // rank 0 alone reads and writes
  if (flags.overwrite) {
    if (flags.resume) throw std::invalid_argument("--resume: --overwrite begins anew");
    out.remove();
    return out;
  }
  try {
    out.from = out.load();
  } catch (const std::runtime_error& damaged) {
    if (flags.resume) throw;
    console.note(fmt::format("{}; beginning anew", damaged.what()));
  }
  if (flags.resume && !out.from)
    throw std::invalid_argument(fmt::format("--resume: there is no snapshot {}", file.string()));
  if (out.from) console.note(fmt::format("going on from {}", file.string()));
  return out;
}

void identify(RunJob& job, const Model& model) {
  if (job.model_sha256.empty()) job.model_sha256 = model.checkpoint.sha256();
}

std::filesystem::path state_file(const Flags& flags, const std::filesystem::path& snapshot) {
  const Part part = parse_part("--parts", flags.parts);
  if (part.whole()) return snapshot;
  std::filesystem::path file = snapshot;
  return file.replace_extension(fmt::format(".{}of{}.part", part.number, part.of));
}

nlohmann::json origin_of(const Flags& flags, const std::filesystem::path& snapshot,
                         const std::vector<std::string>& command_line) {
  if (parse_part("--parts", flags.parts).whole()) return {};
  return {{"command_line", command_line},
          {"folder", std::filesystem::current_path().string()},
          {"snapshot", snapshot.string()}};
}

RunControl control_of(const Flags& flags, Console& console, Snapshots& snapshots, Ranks* ranks) {
  RunControl out;
  out.on_progress = [&console](const Progress& p) { console.progress(p); };
  out.stop = interrupted;
  out.snapshots = &snapshots;
  out.part = parse_part("--parts", flags.parts);
  out.ranks = ranks;
  return out;
}

}  // namespace hesper::cli
