#pragma once
// This process among those of its run (run/ranks.h), which torchrun or hesper launch has started.
#include <memory>

#include "run/plan.h"
#include "run/ranks.h"
#include "run/snapshot.h"

namespace hesper::cli {

/// 0 where there is one process.
int process_rank();

/// Number on this host, which picks the GPU of --device cuda; 0 where there is one process.
int local_rank();

/// Meets the others, where there are any, so that all plan alike: with rank 0's precision and, without a limit, with
/// the least memory that any of them has, a device's shared by its ranks. A rank that dies ends this process with one
/// line and exit code 1. Throws as Ranks does.
std::unique_ptr<Ranks> meet_ranks(EngineOptions& options);

/// Gives all of them the state that rank 0 goes on from.
void share_state(Ranks* ranks, Snapshots& snapshots);

}  // namespace hesper::cli
