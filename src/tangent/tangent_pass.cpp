#include "tangent/tangent_pass.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>

namespace hesper {

int64_t default_cut_rows(at::Device device) { return device.is_cpu() ? 512 : 32768; }
int64_t adjoint_cut_rows(int64_t directions) { return 256 * directions; }
int64_t cut_tokens(int64_t rows, int64_t directions, int64_t tokens, at::Device device) {
  const int64_t step = device.is_cpu() ? 1 : 128;
  return std::clamp<int64_t>(rows / directions / step * step, step, std::max(tokens, step));
}

/// The state of one pass. Border values are those that cross from one segment to another, (K, T, width).
struct TangentPass::Run {
  const Directions& v;
  int64_t window;
  SecondOrder* form = nullptr;  // Gram pass
  Readout* out = nullptr;       // two-pass product
  Curvature kind = Curvature::hessian;
  bool recompute = false;               // two-pass: see product
  bool again = false;                   // the segment that runs now runs for the second time
  const AdjointStart* start = nullptr;  // adjoints alone

  int64_t alive = 0;
  Tensors border{};      // tangents
  Tensors border_bar{};  // tangents of adjoints
  // What adjoint_tangent reads, per segment and op, and the head's input, for all tokens: small tensors of each cut
  // would lie scattered among its temporaries, and leave holes.
  std::vector<std::vector<Kept>> kept{};
  Tensor head_x_dot{};
  struct Borrowed {
    size_t place;
    int value;
  };
  std::vector<std::vector<Borrowed>> borrowed{};  // per attention: its inputs, gone from what it has kept
  std::vector<int> lent{};                        // border values of the segment whose memory has gone to a new one

  /// True where what forward_tangent leaves for the way back is kept as soon as it is made.
  bool keeps(const Segment& segment, bool last) const {
    return out && kind != Curvature::gauss_newton && (!recompute || again || last || !segment.token_local);
  }
};

TangentPass::TangentPass(const Program& program, const Parameters& parameters, const Selection& selection,
                         const Tape& tape, int64_t cut_rows)
    : program_(program),
      parameters_(parameters),
      selection_(selection),
      tape_(tape),
      cut_rows_(cut_rows > 0 ? cut_rows : default_cut_rows(parameters.device())),
      factors_(factors_of(program, selection, parameters.products())) {}

namespace {

/// x with its leading axis raised to `alive` by zeros: a direction that starts later was zero until here.
void grow(Tensor& x, int64_t alive) {
  if (!x.defined() || x.size(0) >= alive) return;
  Tensor wide = at::zeros({alive, x.size(1), x.size(2)}, x.options());
  wide.narrow(0, 0, x.size(0)).copy_(x);
  x = wide;
}

/// The values passed on to the device that reads them next.
void move(Tensors& border, const std::vector<int>& values, at::Device device) {
  for (int x : values)
    if (border[x].defined()) border[x] = border[x].to(device);
}

Tensor cut_of(const Tensor& border, int64_t begin, int64_t length) {
  if (!border.defined() || length == border.size(1)) return border;
  return border.narrow(1, begin, length).clone(at::MemoryFormat::Contiguous);
}

/// Memory for all `tokens` of a value of which `part` is a cut; the cut itself where it is all.
Tensor whole_of(const Tensor& part, int64_t tokens) {
  if (!part.defined() || part.size(1) == tokens) return part;
  return at::empty({part.size(0), tokens, part.size(2)}, part.options());
}
void put(const Tensor& whole, int64_t begin, const Tensor& part) {
  if (part.defined() && !whole.is_same(part)) whole.narrow(1, begin, part.size(1)).copy_(part);
}

/// Directions that must be carried once segment `s` has run, given those before it.
int64_t reach(const Program& program, const Segment& segment, const Directions& v) {
  int64_t k = 0;
  for (int i = segment.begin; i < segment.end; ++i)
    for (int p : program.ops()[i]->parameters) k = std::max(k, v.reach(p));
  return k;
}

}  // namespace

Kept TangentPass::tape_of(const Kept& kept, const Run& run, int64_t begin, int64_t length, at::Device device) const {
  return on_device(cut_rows(kept, run.window * tape_.tokens.length + begin, length), device);
}

/// Tokens [begin, begin + length), the number-th cut of its segment; `turn` runs a function after those of earlier
/// cuts.
struct TangentPass::Cut {
  int64_t number, count, begin, length;
  const std::function<void(const std::function<void()>&)>& in_turn;
};

template <class F>
void TangentPass::for_cuts(const Segment& segment, int64_t alive, F f) const {
  const int64_t total = tape_.tokens.length;
  const int64_t step = segment.token_local ? cut_tokens(cut_rows_, alive, total, parameters_.device()) : total;
  const int64_t count = (total + step - 1) / step;
  const int64_t workers = parameters_.device().is_cpu() ? std::min<int64_t>(at::get_num_threads(), count) : 1;
  std::atomic<int64_t> next = 0;
  std::mutex mutex;
  std::condition_variable changed;
  int64_t turn = 0;
  bool failed = false;
  at::parallel_for(0, workers, 1, [&](int64_t, int64_t) {
    const at::NoGradGuard no_grad;  // of this thread
    // Cuts are taken in ascending order, so the lowest one that is not done never waits.
    for (int64_t c = next++; c < count; c = next++) {
      const std::function<void(const std::function<void()>&)> in_turn = [&](const std::function<void()>& g) {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return turn == c || failed; });
        if (!failed) g();
        ++turn;
        changed.notify_all();
      };
      try {
        f(Cut{c, count, c * step, std::min(step, total - c * step), in_turn});
      } catch (...) {
        const std::lock_guard lock(mutex);
        failed = true;
        changed.notify_all();
        throw;
      }
    }
  });
}

void TangentPass::forward_cut(Run& run, const Segment& segment, const Cut& cut) const {
  const auto [number, count, begin, length, in_turn] = cut;
  const bool last = &segment == &program_.segments().back();
  const Tokens tokens = tape_.tokens.cut(run.window, begin, length).to(segment.device);
  std::optional<SecondOrder> form;
  const bool keeps = run.keeps(segment, last);
  if (run.form) form.emplace(run.form->cut());
  Tensors dot(program_.values());
  for (int x : segment.inputs) dot[x] = cut_of(run.border[x], begin, length);
  std::vector<Kept> kept_ops;
  for (int i = segment.begin; i < segment.end; ++i) {
    const Op& op = *program_.ops()[i];
    Kept kept;
    if (tape_.active[op.output]) {
      const Kept tape = tape_of(tape_.ops[i], run, begin, length, segment.device);
      Tangent t{tokens, parameters_, run.v, tape, run.alive, ~0u, form ? &*form : nullptr};
      t.factor = factors_[i].output;
      Tensors x;
      for (int input : op.inputs) x.push_back(dot[input]);
      dot[op.output] = op.forward_tangent(t, x, kept);
      if (form) op.second_order(t, kept, *form);
    }
    if (keeps) kept_ops.push_back(std::move(kept));
  }
  const Tensor head_x_dot = last ? dot[program_.cross_entropy().input] : Tensor();
  if (last && form) {
    const Kept tape = tape_of(tape_.head, run, begin, length, segment.device);
    program_.cross_entropy().second_order({tokens, parameters_, run.v, tape, run.alive}, head_x_dot, *form);
  }
  std::vector<Kept>* const all_kept = form ? nullptr : &run.kept[&segment - program_.segments().data()];
  // The second time only the attention that follows reads what the segment makes.
  const std::vector<int>& outputs = run.again ? (&segment + 1)->inputs : segment.outputs;
  in_turn([&] {
    if (form) form->commit(*run.form);
    if (keeps && all_kept->empty())
      for (const Kept& mine : kept_ops) {
        all_kept->emplace_back();
        for (const Tensor& t : mine) all_kept->back().push_back(whole_of(t, tape_.tokens.length));
      }
    if (last && !form && !run.head_x_dot.defined()) run.head_x_dot = whole_of(head_x_dot, tape_.tokens.length);
    for (int y : outputs)
      if (dot[y].defined() && !run.border[y].defined())
        run.border[y] = count == 1 ? dot[y] : border_for(run, segment, dot[y]);
  });
  for (size_t op = 0; op < kept_ops.size(); ++op)
    for (size_t i = 0; i < kept_ops[op].size(); ++i) put((*all_kept)[op][i], begin, kept_ops[op][i]);
  if (last && !form) put(run.head_x_dot, begin, head_x_dot);
  if (count == 1) return;
  for (int y : outputs)
    if (dot[y].defined()) run.border[y].narrow(1, begin, length).copy_(dot[y]);
}

/// Memory for a value that begins in `segment`, shaped like `part` but for all tokens. Where nothing goes back, it is
/// that of a value of the same shape that ends here: a cut reads its own rows before it writes them.
Tensor TangentPass::border_for(Run& run, const Segment& segment, const Tensor& part) const {
  const std::vector<int64_t> shape = {run.alive, tape_.tokens.length, part.size(2)};
  if (run.form)
    for (int x : segment.last) {
      const bool lent = std::find(run.lent.begin(), run.lent.end(), x) != run.lent.end();
      if (lent || !run.border[x].defined() || run.border[x].sizes() != shape) continue;
      run.lent.push_back(x);
      return run.border[x];
    }
  return at::empty(shape, part.options());
}

void TangentPass::forward(Run& run, const Segment& segment) const {
  move(run.border, segment.inputs, segment.device);
  for (int x : segment.inputs) grow(run.border[x], run.alive);
  run.lent.clear();
  for_cuts(segment, run.alive, [&](const Cut& cut) { forward_cut(run, segment, cut); });
  const bool last = &segment == &program_.segments().back();
  if (run.recompute && !run.again && !last) {
    if (segment.token_local) return;  // its inputs are where it starts again
    std::vector<Run::Borrowed>& borrowed = run.borrowed[&segment - program_.segments().data()];
    Kept& kept = run.kept[&segment - program_.segments().data()][0];
    for (size_t i = 0; i < kept.size(); ++i)
      for (int x : (&segment - 1)->outputs)
        if (kept[i].defined() && kept[i].is_same(run.border[x])) kept[i] = Tensor(), borrowed.push_back({i, x});
  }
  for (int x : segment.last) run.border[x] = Tensor();
}

/// Runs the token-local segment before `attention` again from its inputs: what it keeps, and the attention's inputs,
/// which stand in what the attention has kept.
void TangentPass::recompute(Run& run, const Segment& attention) const {
  run.again = true;
  forward(run, *(&attention - 1));
  run.again = false;
  const size_t number = &attention - program_.segments().data();
  for (const auto& [place, value] : run.borrowed[number]) run.kept[number][0][place] = run.border[value];
  for (int x : attention.last) run.border[x] = Tensor();
}

void TangentPass::backward_cut(Run& run, const Segment& segment, const Cut& cut) const {
  const auto [number, count, begin, length, in_turn] = cut;
  const Tokens tokens = tape_.tokens.cut(run.window, begin, length).to(segment.device);
  const Directions none;
  const Directions& v = run.kind == Curvature::gauss_newton ? none : run.v;
  Readout out = run.out->cut();
  Tensors bar(program_.values());
  if (&segment == &program_.segments().back()) {
    const Kept tape = tape_of(tape_.head, run, begin, length, segment.device);
    const CrossEntropyHead& head = program_.cross_entropy();
    const Tangent t{tokens, parameters_, run.v, tape, run.alive};
    bar[head.input] = run.start ? head.adjoint(t, *run.start, out)
                                : head.adjoint_tangent(t, cut_of(run.head_x_dot, begin, length), run.kind, out);
  }
  for (int y : segment.outputs) bar[y] = cut_of(run.border_bar[y], begin, length);
  const std::vector<Kept>& all_kept = run.kept[&segment - program_.segments().data()];
  for (int i = segment.end - 1; i >= segment.begin; --i) {
    const Op& op = *program_.ops()[i];
    if (!tape_.active[op.output]) continue;
    const Kept tape = tape_of(tape_.ops[i], run, begin, length, segment.device);
    const unsigned wanted = active_inputs(op, tape_.active);
    Tangent t{tokens, parameters_, v, tape, run.alive, wanted};
    t.factors = factors_[i].inputs;
    t.sums = &bar;
    Kept kept;
    if (!all_kept.empty())
      for (const Tensor& whole : all_kept[i - segment.begin]) kept.push_back(cut_of(whole, begin, length));
    const Tensors x = op.adjoint_tangent(t, bar[op.output], kept, out);
    bar[op.output] = Tensor();
    for (size_t k = 0; k < op.inputs.size(); ++k)
      if (wanted >> k & 1u) bar[op.inputs[k]] = plus(bar[op.inputs[k]], x[k]);
  }
  in_turn([&] {
    out.commit(*run.out);
    for (int x : segment.inputs) {
      Tensor& sum = run.border_bar[x];
      if (count == 1)
        sum = plus(sum, std::exchange(bar[x], Tensor()));
      else if (bar[x].defined() && !sum.defined())
        sum = at::zeros({run.alive, tape_.tokens.length, bar[x].size(2)}, bar[x].options());
    }
  });
  for (int x : segment.inputs)
    if (bar[x].defined()) run.border_bar[x].narrow(1, begin, length).add_(bar[x]);
}

void TangentPass::backward(Run& run, const Segment& segment) const {
  move(run.border_bar, segment.outputs, segment.device);
  move(run.border_bar, segment.inputs, segment.device);
  for_cuts(segment, run.alive, [&](const Cut& cut) { backward_cut(run, segment, cut); });
  run.kept[&segment - program_.segments().data()].clear();
  run.head_x_dot = Tensor();
  for (int y : segment.outputs) run.border_bar[y] = Tensor();
}

void TangentPass::backward(Run& run) const {
  for (auto segment = program_.segments().rbegin(); segment != program_.segments().rend(); ++segment) {
    const bool active = std::any_of(program_.ops().begin() + segment->begin, program_.ops().begin() + segment->end,
                                    [&](const auto& op) { return tape_.active[op->output]; });
    if (!active && segment != program_.segments().rbegin()) continue;
    const bool ran = !run.kept[&*segment - program_.segments().data()].empty();
    if (run.recompute && !segment->token_local && ran) recompute(run, *segment);
    backward(run, *segment);
  }
}

Tensor TangentPass::product(const Directions& v, int64_t s, Curvature kind, bool recompute) const {
  const at::NoGradGuard no_grad;
  Readout out = Readout::of(selection_, v, v.count(), parameters_.device(), parameters_.products());
  Run run{v, s};
  run.out = &out;
  run.kind = kind;
  run.recompute = recompute && kind != Curvature::gauss_newton;  // which keeps nothing
  run.border.resize(program_.values());
  run.border_bar.resize(program_.values());
  run.kept.resize(program_.segments().size());
  run.borrowed.resize(program_.segments().size());
  for (const Segment& segment : program_.segments()) {
    // Every direction goes all the way back, so all are carried from the first start on.
    if (run.alive == 0 && reach(program_, segment, v) > 0) run.alive = v.count();
    if (run.alive > 0 || &segment == &program_.segments().back()) {
      run.alive = v.count();
      forward(run, segment);
    }
  }
  backward(run);
  return out.values();
}

Tensor TangentPass::adjoint(const AdjointStart& start, int64_t s) const {
  const at::NoGradGuard no_grad;
  Readout out(selection_, start.count, parameters_.device(), parameters_.products());
  const Directions none;
  Run run{none, s};
  run.out = &out;
  run.kind = Curvature::gauss_newton;  // nothing but plain adjoints below the head
  run.start = &start;
  run.alive = start.count;
  run.border_bar.resize(program_.values());
  run.kept.resize(program_.segments().size());
  backward(run);
  return out.values();
}

TangentPass::Forms TangentPass::second_order(const Directions& v, int64_t s) const {
  const at::NoGradGuard no_grad;
  SecondOrder form(selection_, v, parameters_.working(), parameters_.device(), parameters_.products());
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
