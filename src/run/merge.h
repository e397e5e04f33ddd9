#pragma once
// Parts of one run (RunControl::part) joined into the state of the whole with all steps done: every tensor of a state
// is a sum over windows, so the states add. The result is that of one process to fp64 rounding: the sums run in another
// order.
#include <filesystem>
#include <string>
#include <vector>

#include "run/saved_state.h"

namespace hesper {

/// Throws std::runtime_error for a file that is damaged or no part; std::invalid_argument, naming the files, for parts
/// of different runs or plans (with the first difference), unfinished ones, windows that two parts hold or that none
/// does.
SavedState merge_parts(const std::vector<std::filesystem::path>& files);

struct PartFile {
  std::string name;
  SavedState saved;
};
/// The same of parts that are read already.
SavedState merge_parts(std::vector<PartFile> parts);

}  // namespace hesper
