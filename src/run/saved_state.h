#pragma once
// What is kept of a run that is not over, and its file: one safetensors file, the accumulators as tensors, the rest as
// metadata, a SHA-256 over all of it. Parts of runs travel between machines, so a file is read as a stranger's.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "hessian/named_tensors.h"
#include "ops/op.h"

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
  nlohmann::json configuration;  // an object
  nlohmann::json origin;         // of a part: the command that it is a part of (Snapshots::origin)
  RunState state;
  struct Before {
    nlohmann::json note;
    NamedTensors tensors;
  } before;  // what runs that are over have left, where several go in turn
};

/// Throws std::runtime_error for a file that is damaged or no snapshot.
SavedState read_state(const std::filesystem::path& file);
/// The same from bytes; `name` stands in the message.
SavedState parse_state(std::span<const std::byte> bytes, const std::string& name);
/// The state that the metadata's text and the tensors (fp64) of a file say, whose checksum is right.
SavedState state_of(const std::string& text, const NamedTensors& tensors, const std::string& name);
/// Whole or not at all; throws std::runtime_error where it cannot be written.
void write_state(const std::filesystem::path& file, const SavedState& saved);

}  // namespace hesper
