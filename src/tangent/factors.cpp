#include "tangent/factors.h"

#include <algorithm>

namespace hesper {

std::vector<Factors> factors_of(const Program& program, const Selection& selection, Products products) {
  const auto& ops = program.ops();
  std::vector<Factors> out(ops.size());
  if (!splits(products)) return out;
  const auto moves = [&](const Op& op) {
    return std::any_of(op.parameters.begin(), op.parameters.end(), [&](int p) { return p >= 0 && selection.has(p); });
  };
  for (const Segment& segment : program.segments()) {
    for (int i = segment.begin; i < segment.end; ++i) {
      const int value = ops[i]->output;
      if (std::find(segment.outputs.begin(), segment.outputs.end(), value) != segment.outputs.end() ||
          value == program.cross_entropy().input)
        continue;
      std::vector<int> readers;
      for (int j = i + 1; j < segment.end; ++j)
        for (int x : ops[j]->inputs)
          if (x == value) readers.push_back(j);
      out[i].output = !moves(*ops[i]) && !readers.empty() && std::all_of(readers.begin(), readers.end(), [&](int j) {
        return ops[j]->multiplies() && !moves(*ops[j]);
      });
      if (readers.size() != 1 || !ops[i]->multiplies() || moves(*ops[i])) continue;
      const auto& inputs = ops[readers[0]]->inputs;
      out[readers[0]].inputs |= 1u << (std::find(inputs.begin(), inputs.end(), value) - inputs.begin());
    }
  }
  return out;
}

}  // namespace hesper
