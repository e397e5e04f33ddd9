#include "snapshots.h"

#include <fmt/format.h>

#include <stdexcept>

#include "values.h"

namespace hesper::cli {

Snapshots open_snapshots(const Flags& flags, const std::filesystem::path& file,
                         const Snapshots::Configuration& configuration, Console& console) {
  Snapshots out(file, configuration, parse_seconds("--snapshot-every", flags.snapshot_every),
                [&console](const std::string& trouble) { console.note("no snapshot: " + trouble); });
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

}  // namespace hesper::cli
