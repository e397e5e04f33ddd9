#include "tangent/tangent_pass.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

namespace hesper {

int64_t default_cut_rows(at::Device device) { return device.is_cpu() ? 512 : 16384; }

/// The state of one pass. Border values are those that cross from one segment to another, (K, T, width).
struct TangentPass::Run {
  const Directions& v;
  int64_t window;
  SecondOrder* form = nullptr;  // Gram pass
  Readout* out = nullptr;       // two-pass product
  Curvature kind = Curvature::hessian;

  int64_t alive = 0;
  Tensors border{};      // tangents
  Tensors border_bar{};  // tangents of adjoints
  // What adjoint_tangent reads, per segment, cut and op; and the head's input, per cut.
  std::vector<std::vector<std::vector<Kept>>> kept{};
  Tensors head_x_dot{};

  bool keeps() const { return out && kind != Curvature::gauss_newton; }
};

TangentPass::TangentPass(const Program& program, const Parameters& parameters, const Selection& selection,
                         const Tape& tape, int64_t cut_rows)
    : program_(program),
      parameters_(parameters),
      selection_(selection),
      tape_(tape),
      cut_rows_(cut_rows > 0 ? cut_rows : default_cut_rows(parameters.device())) {}

namespace {

/// x with its leading axis raised to `alive` by zeros: a direction that starts later was zero until here.
void grow(Tensor& x, int64_t alive) {
  if (!x.defined() || x.size(0) >= alive) return;
  Tensor wide = at::zeros({alive, x.size(1), x.size(2)}, x.options());
  wide.narrow(0, 0, x.size(0)).copy_(x);
  x = wide;
}

Tensor cut_of(const Tensor& border, int64_t begin, int64_t length) {
  return border.defined() ? border.narrow(1, begin, length).contiguous() : border;
}

/// Directions that must be carried once segment `s` has run, given those before it.
int64_t reach(const Program& program, const Segment& segment, const Directions& v) {
  int64_t k = 0;
  for (int i = segment.begin; i < segment.end; ++i)
    for (int p : program.ops()[i]->parameters) k = std::max(k, v.reach(p));
  return k;
}

}  // namespace

Kept TangentPass::tape_of(const Kept& kept, const Run& run, int64_t begin, int64_t length) const {
  return cut_rows(kept, run.window * tape_.tokens.length + begin, length);
}

void TangentPass::forward_cut(Run& run, const Segment& segment, int64_t begin, int64_t length) const {
  const Tokens tokens = tape_.tokens.cut(run.window, begin, length);
  Tensors dot(program_.values());
  for (int x : segment.inputs) dot[x] = cut_of(run.border[x], begin, length);
  std::vector<Kept> kept_ops;
  for (int i = segment.begin; i < segment.end; ++i) {
    const Op& op = *program_.ops()[i];
    Kept kept;
    if (tape_.active[op.output]) {
      const Kept tape = tape_of(tape_.ops[i], run, begin, length);
      const Tangent t{tokens, parameters_, run.v, tape, run.alive, ~0u, run.form};
      Tensors x;
      for (int input : op.inputs) x.push_back(dot[input]);
      dot[op.output] = op.forward_tangent(t, x, kept);
      if (run.form) op.second_order(t, kept, *run.form);
    }
    if (run.keeps()) kept_ops.push_back(std::move(kept));
  }
  const int segment_number = static_cast<int>(&segment - program_.segments().data());
  if (run.keeps()) run.kept[segment_number].push_back(std::move(kept_ops));
  for (int y : segment.outputs) {
    if (!dot[y].defined()) continue;
    if (length == tape_.tokens.length) {
      run.border[y] = dot[y];
      continue;
    }
    if (!run.border[y].defined() || begin == 0)
      run.border[y] = at::empty({run.alive, tape_.tokens.length, dot[y].size(2)}, dot[y].options());
    run.border[y].narrow(1, begin, length).copy_(dot[y]);
  }
  if (&segment != &program_.segments().back()) return;
  const Tensor& last = dot[program_.cross_entropy().input];
  if (run.form) {
    const Kept tape = tape_of(tape_.head, run, begin, length);
    program_.cross_entropy().second_order({tokens, parameters_, run.v, tape, run.alive}, last, *run.form);
  } else {
    run.head_x_dot.push_back(last);
  }
}

void TangentPass::forward(Run& run, const Segment& segment) const {
  for (int x : segment.inputs) grow(run.border[x], run.alive);
  const int64_t total = tape_.tokens.length;
  const int64_t step = segment.token_local ? std::clamp<int64_t>(cut_rows_ / run.alive, 1, total) : total;
  for (int64_t begin = 0; begin < total; begin += step) {
    forward_cut(run, segment, begin, std::min(step, total - begin));
    if (run.form) run.form->flush();
  }
  for (int x : segment.last) run.border[x] = Tensor();
}

void TangentPass::backward_cut(Run& run, const Segment& segment, size_t cut, int64_t begin, int64_t length) const {
  const Tokens tokens = tape_.tokens.cut(run.window, begin, length);
  const Directions none;
  const Directions& v = run.kind == Curvature::gauss_newton ? none : run.v;
  Tensors bar(program_.values());
  if (&segment == &program_.segments().back()) {
    const Kept tape = tape_of(tape_.head, run, begin, length);
    bar[program_.cross_entropy().input] = program_.cross_entropy().adjoint_tangent(
        {tokens, parameters_, run.v, tape, run.alive}, run.head_x_dot[cut], run.kind, *run.out);
  }
  for (int y : segment.outputs) bar[y] = cut_of(run.border_bar[y], begin, length);
  const auto& cuts = run.kept[&segment - program_.segments().data()];
  for (int i = segment.end - 1; i >= segment.begin; --i) {
    const Op& op = *program_.ops()[i];
    if (!tape_.active[op.output]) continue;
    const Kept tape = tape_of(tape_.ops[i], run, begin, length);
    const unsigned wanted = active_inputs(op, tape_.active);
    const Tangent t{tokens, parameters_, v, tape, run.alive, wanted};
    const Tensors x =
        op.adjoint_tangent(t, bar[op.output], cuts.empty() ? Kept{} : cuts[cut][i - segment.begin], *run.out);
    bar[op.output] = Tensor();
    for (size_t k = 0; k < op.inputs.size(); ++k)
      if (wanted >> k & 1u) bar[op.inputs[k]] = plus(bar[op.inputs[k]], x[k]);
  }
  for (int x : segment.inputs) {
    if (!bar[x].defined()) continue;
    Tensor& sum = run.border_bar[x];
    if (!sum.defined()) sum = at::zeros({run.alive, tape_.tokens.length, bar[x].size(2)}, bar[x].options());
    sum.narrow(1, begin, length).add_(bar[x]);
  }
}

void TangentPass::backward(Run& run, const Segment& segment) const {
  const int64_t total = tape_.tokens.length;
  const int64_t step = segment.token_local ? std::clamp<int64_t>(cut_rows_ / run.alive, 1, total) : total;
  size_t cut = 0;
  for (int64_t begin = 0; begin < total; begin += step, ++cut)
    backward_cut(run, segment, cut, begin, std::min(step, total - begin));
  run.kept[&segment - program_.segments().data()].clear();
  for (int y : segment.outputs) run.border_bar[y] = Tensor();
}

Tensor TangentPass::product(const Directions& v, int64_t s, Curvature kind) const {
  const at::NoGradGuard no_grad;
  Readout out(selection_, v.count(), parameters_.device());
  Run run{v, s};
  run.out = &out;
  run.kind = kind;
  run.border.resize(program_.values());
  run.border_bar.resize(program_.values());
  run.kept.resize(program_.segments().size());
  for (const Segment& segment : program_.segments()) {
    // Every direction goes all the way back, so all are carried from the first start on.
    if (run.alive == 0 && reach(program_, segment, v) > 0) run.alive = v.count();
    if (run.alive > 0 || &segment == &program_.segments().back()) {
      run.alive = v.count();
      forward(run, segment);
    }
  }
  for (auto segment = program_.segments().rbegin(); segment != program_.segments().rend(); ++segment) {
    const bool active = std::any_of(program_.ops().begin() + segment->begin, program_.ops().begin() + segment->end,
                                    [&](const auto& op) { return tape_.active[op->output]; });
    if (active || segment == program_.segments().rbegin()) backward(run, *segment);
  }
  return out.values();
}

TangentPass::Forms TangentPass::second_order(const Directions& v, int64_t s) const {
  const at::NoGradGuard no_grad;
  SecondOrder form(selection_, v, parameters_.working(), parameters_.device());
  Run run{v, s};
  run.form = &form;
  run.border.resize(program_.values());
  for (const Segment& segment : program_.segments()) {
    run.alive = std::max(run.alive, reach(program_, segment, v));
    if (&segment == &program_.segments().back()) run.alive = v.count();
    if (run.alive > 0) forward(run, segment);
  }
  return {form.gauss_newton(), form.residual()};
}

}  // namespace hesper
