#include "run/tensor_moments.h"

#include <fmt/format.h>

namespace hesper {

TensorMoments::TensorMoments(const Selection& selection, std::vector<const UnitSums*> of, int64_t windows,
                             Samples samples)
    : selection(selection), units(std::move(of)) {
  for (size_t i = 0; i < units.size(); ++i) {
    entries.emplace_back(selection.parts()[i].size, windows, samples);
    sums.emplace_back(units[i]->size(), windows, samples);
  }
}

void TensorMoments::begin_visit(int64_t window) {
  for (auto* moments : {&entries, &sums})
    for (DiagonalMoments& m : *moments) m.begin_visit(window);
}

void TensorMoments::add(const at::Tensor& z) {
  for (size_t i = 0; i < units.size(); ++i) {
    const SelectedPart& part = selection.parts()[i];
    const at::Tensor mine = z.narrow(1, part.begin, part.size);
    entries[i].add(mine);
    sums[i].add(units[i]->of(mine));
  }
}

void TensorMoments::shift(int64_t window, const at::Tensor& e) {
  for (size_t i = 0; i < units.size(); ++i) {
    const SelectedPart& part = selection.parts()[i];
    const at::Tensor mine = e.narrow(0, part.begin, part.size);
    entries[i].shift(window, mine);
    sums[i].shift(window, units[i]->of(mine.unsqueeze(0))[0]);
  }
}

NamedTensors TensorMoments::all_sums(const std::string& name, bool known) {
  NamedTensors out;
  const auto join = [&](const NamedTensors& more) { out.insert(out.end(), more.begin(), more.end()); };
  for (size_t i = 0; i < entries.size(); ++i) {
    join(entries[i].sums(fmt::format("{}.{}.entries", name, i), known));
    join(sums[i].sums(fmt::format("{}.{}.sums", name, i), known));
  }
  return out;
}

std::vector<const UnitSums*> all_of(const std::vector<UnitSums>& sums) {
  std::vector<const UnitSums*> out;
  for (const UnitSums& s : sums) out.push_back(&s);
  return out;
}

}  // namespace hesper
