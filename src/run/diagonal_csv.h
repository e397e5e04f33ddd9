#pragma once
// The .csv of a diagonal: one line for each sum of unit_sums.h, with its standard errors.
//   tensor, unit (layer, row, column, head, group), index, group, entries,
//   diagonal, diagonal_probe, diagonal_data, diagonal_total, saliency, saliency_probe, saliency_data, saliency_total
// index: row, column or head; group: which one of row `index`. Empty: unknown; nan: data below probe noise. Sums keep
// the sign of their entries, negative ones included.
#include <filesystem>

#include "run/diagonal_files.h"

namespace hesper {

void write_sums_csv(const std::filesystem::path& path, const DiagonalJob& job, const DiagonalResult& result);

}  // namespace hesper
