#pragma once
// The snapshot of a command's run: what was left by one that was stopped, and where the next one goes.
#include "console.h"
#include "flags.h"
#include "run/snapshot.h"

namespace hesper::cli {

/// With what is in `file` as Snapshots::from, unless --overwrite begins anew. A damaged file is told and left out, with
/// --resume refused. console outlives the snapshots. Throws as Snapshots::load does; std::invalid_argument for --resume
/// without a file.
Snapshots open_snapshots(const Flags& flags, const std::filesystem::path& file,
                         const Snapshots::Configuration& configuration, Console& console);

}  // namespace hesper::cli
