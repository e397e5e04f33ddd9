#include "run/forecast_walk.h"

#include <algorithm>

#include "tangent/tangent_pass.h"

namespace hesper {

Walk::Walk(const RunShapes& r, at::Device here) : run(r), here(here), active(active_values(*r.program, *r.selection)) {
  const Program& program = *r.program;
  width.resize(program.values()), all.resize(program.values());
  for (const auto& op : program.ops()) {
    OpShapes shapes;
    shapes.tokens = r.tokens;
    for (int v : op->inputs) shapes.inputs.push_back(all[v]);
    for (int p : op->parameters) {
      shapes.parameters.push_back(p < 0 ? std::vector<int64_t>{} : r.parameter_shapes[p]);
      shapes.selected.push_back(p >= 0 && r.selection->has(p));
    }
    ops.push_back(op->cost(shapes));
    all[op->output] = ops.back().width;
    if (!active[op->output]) continue;
    width[op->output] = ops.back().width;
    widest = std::max(widest, ops.back().width);
  }
  for (const Segment& segment : program.segments()) {
    kept.push_back(0), inside.push_back(0);
    for (int i = segment.begin; i < segment.end; ++i)
      if (active[program.ops()[i]->output]) kept.back() += ops[i].kept_tangent, inside.back() += ops[i].width;
  }
  const auto& table = r.parameter_shapes[program.cross_entropy().table];
  words = table[0], head_width = table[1];
  widest = std::max(widest, head_width);
}

int64_t gram_tangents(const Walk& w) {
  Live live(w.width);
  int64_t most = 0;
  for (const Segment& s : w.run.program->segments()) {
    std::vector<int64_t> lenders;  // a value that ends in a token-local segment lends its memory to one of its width
    for (int x : s.last)
      if (s.token_local) lenders.push_back(w.width[x]);
    int64_t made = w.kept[w.number(s)] * (s.token_local ? 0 : 1);
    for (int y : s.outputs) {
      const auto lender = std::find(lenders.begin(), lenders.end(), w.width[y]);
      if (lender == lenders.end())
        made += w.width[y];
      else
        lenders.erase(lender);
    }
    if (w.mine(s)) most = std::max(most, live.width() + made);
    for (int y : s.outputs) live.add(y);
    for (int x : s.last) live.drop(x);
  }
  return most;
}

int64_t two_pass_tangents(const Walk& w, bool recompute) {
  const std::vector<Segment>& segments = w.run.program->segments();
  Live live(w.width), bars(w.width);
  int64_t kept = 0, most = 0;
  const auto now = [&](int64_t more) { most = std::max(most, live.width() + bars.width() + kept + more); };
  // Inputs of a token-local segment that go when it is done with them; an attention keeps its output.
  const auto drop_inputs = [&](size_t i) {
    for (int x : segments[i].last)
      if (const auto& before = segments[i - 1].outputs; std::find(before.begin(), before.end(), x) == before.end())
        live.drop(x);
  };
  for (size_t i = 0; i < segments.size(); ++i) {
    const Segment& s = segments[i];
    const bool last = w.last(s);
    if (w.mine(s)) {
      for (int x : s.inputs) live.add(x);
      for (int y : s.outputs) live.add(y);
      if (!recompute || !s.token_local || last) kept += w.kept[i];
      now(last ? w.head_width : 0);
    }
    if (!s.token_local && recompute)
      for (int x : s.last) live.drop(x);
    if (s.token_local && i > 0 && (!recompute || last)) drop_inputs(i);
  }
  for (size_t i = segments.size(); i-- > 0;) {
    const Segment& s = segments[i];
    if (!w.mine(s)) {
      for (int x : s.inputs) bars.add(x);
      for (int y : s.outputs) bars.drop(y);
      continue;
    }
    if (recompute && !s.token_local && i > 0) {
      for (int x : s.inputs) live.add(x);
      kept += w.kept[i - 1];
      now(0);
      if (i > 1) drop_inputs(i - 1);
    }
    for (int x : s.inputs) bars.add(x);
    now(w.last(s) ? w.head_width : 0);
    for (int y : s.outputs) bars.drop(y);
    kept -= w.kept[i];
    if (s.token_local) continue;
    for (int x : s.inputs) live.drop(x);
    for (int y : s.outputs) live.drop(y);
  }
  return most;
}

int64_t adjoint_tangents(const Walk& w) {
  const std::vector<Segment>& segments = w.run.program->segments();
  Live bars(w.width);
  int64_t most = 0;
  for (size_t i = segments.size(); i-- > 0;) {
    for (int x : segments[i].inputs) bars.add(x);
    if (w.mine(segments[i])) most = std::max(most, bars.width() + (w.last(segments[i]) ? w.head_width : 0));
    for (int y : segments[i].outputs) bars.drop(y);
  }
  return most;
}

}  // namespace hesper
