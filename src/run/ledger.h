#pragma once
// The work of a run as units in a fixed order: (batch of windows, chunk of directions). Results are fp64 sums added in
// this order, so the same plan gives the same bits.
#include <cstdint>
#include <vector>

namespace hesper {

struct Unit {
  int64_t first_window, windows;  // [first_window, first_window + windows)
  int64_t begin, end;             // directions
};

/// Batches of at most `batch` windows outermost, chunks of at most `directions` inside each.
std::vector<Unit> make_units(int64_t windows, int64_t batch, int64_t n, int64_t directions);

}  // namespace hesper
