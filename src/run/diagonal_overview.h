#pragma once
// One picture of the diagonals of several tensors, layers x blocks: trace, share of negative entries, relative bars.
#include <filesystem>

#include "run/diagonal_files.h"

namespace hesper {

/// Writes PATH.pdf and PATH.png.
void write_overview(const std::filesystem::path& path, const DiagonalJob& job, const DiagonalResult& result);

}  // namespace hesper
