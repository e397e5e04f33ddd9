#include "run/ledger.h"

#include <algorithm>

namespace hesper {

std::vector<Unit> make_units(int64_t windows, int64_t batch, int64_t n, int64_t directions) {
  std::vector<Unit> units;
  for (int64_t w = 0; w < windows; w += batch)
    for (int64_t k = 0; k < n; k += directions)
      units.push_back({w, std::min(batch, windows - w), k, std::min(k + directions, n)});
  return units;
}

}  // namespace hesper
