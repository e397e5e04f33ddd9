#include "run/plan.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <stdexcept>

#include "primal/primal.h"
#include "tangent/tangent_pass.h"

namespace hesper {
namespace {

// A two-pass chunk larger than this gains nothing: the products are already hundreds of rows tall.
constexpr int64_t kMostDirections = 16;
// fp64 products run at about this fraction of fp32's rate on a CPU (measured: 55-65 against 110-150 GFLOP/s).
constexpr double kDoubleCost = 2.2;

// What LibTorch and MKL hold by themselves after the first products (packing buffers, thread stacks): measured as the
// excess of the peak over the parts on opt-tiny, 79 MiB at 64 and at 256 directions.
constexpr int64_t kLibrary = int64_t{72} << 20;
int64_t bytes_of(at::ScalarType dtype) { return static_cast<int64_t>(c10::elementSize(dtype)); }

/// Sums over the ops of a program, an op below the first selected weight counting for its forward flops only.
struct Totals {
  int64_t forward = 0, tape = 0, tangent = 0;  // elements a token
  int64_t form_width = 0;
  int64_t widest = 0;                  // of any value
  int64_t border = 0;                  // widths alive at once between segments (residual stream, q, k, v, o)
  double flops = 0, active_flops = 0;  // a token, head excluded
  int64_t head_width = 0, words = 0;
  int64_t largest_weight = 0;  // elements
};

struct Walk {
  Totals sums;
  std::vector<int64_t> forward, tape;  // per op
};

Walk walk(const PlanRequest& r) {
  Walk w;
  Totals& t = w.sums;
  std::vector<int64_t> width(r.program->values(), 0);
  const std::vector<char> active = active_values(*r.program, *r.selection);
  for (const auto& op : r.program->ops()) {
    OpShapes shapes;
    shapes.tokens = r.tokens;
    for (int v : op->inputs) shapes.inputs.push_back(width[v]);
    for (int p : op->parameters) {
      shapes.parameters.push_back(p < 0 ? std::vector<int64_t>{} : r.parameter_shapes[p]);
      shapes.selected.push_back(p >= 0 && r.selection->has(p));
    }
    const OpCost c = op->cost(shapes);
    width[op->output] = c.width;
    t.widest = std::max(t.widest, c.width);
    t.flops += c.flops;
    const bool on = active[op->output];
    w.forward.push_back(on ? c.kept_forward : 0);
    w.tape.push_back(on ? c.kept_tape : 0);
    if (!on) continue;
    t.active_flops += c.flops;
    t.tangent += c.kept_tangent;
    t.form_width += c.form_width;
  }
  for (size_t i = 0; i < w.forward.size(); ++i) t.forward += w.forward[i], t.tape += w.tape[i];
  for (const Segment& s : r.program->segments()) {
    int64_t alive = 0;
    for (int v : s.inputs) alive += active[v] ? width[v] : 0;
    for (int v : s.outputs) alive += active[v] ? width[v] : 0;
    if (s.token_local)  // a value that ends here lends its memory to one of its width that begins
      for (int v : s.last) alive -= active[v] ? width[v] : 0;
    else
      for (int v : r.program->segments()[&s - r.program->segments().data() + 1].inputs)
        alive += active[v] && std::find(s.outputs.begin(), s.outputs.end(), v) == s.outputs.end() ? width[v] : 0;
    t.border = std::max(t.border, alive);
  }
  const auto& table = r.parameter_shapes[r.program->cross_entropy().table];
  t.words = table[0], t.head_width = table[1];
  for (const auto& shape : r.parameter_shapes) {
    const int64_t n = c10::multiply_integers(shape);
    t.largest_weight = std::max(t.largest_weight, n);
  }
  return w;
}

/// The largest of what the attention ops hold beside their values.
int64_t attention_scratch(const PlanRequest& r, int64_t k, int64_t e) {
  int64_t most = 0;
  for (const auto& op : r.program->ops())
    most = std::max(most, op->scratch_bytes(r.tokens, k, e, at::get_num_threads()));
  return most;
}
int64_t primal_attention_scratch(const PlanRequest& r, int64_t batch, int64_t e) {
  int64_t most = 0;
  for (const auto& op : r.program->ops()) most = std::max(most, op->primal_scratch_bytes(r.tokens, batch, e));
  return most;
}

/// Peak of the primal pass: values kept by forward (primal precision) turn into tape (working precision) op by op.
int64_t tape_peak(const Walk& w, int64_t rows, int64_t primal, int64_t working) {
  int64_t held = w.sums.forward * primal, most = held;
  for (size_t i = w.forward.size(); i-- > 0;) {
    most = std::max(most, held + w.tape[i] * primal);
    held += w.tape[i] * working - w.forward[i] * primal;
    most = std::max(most, held);
  }
  // Beside the tape: an op's input, output, their adjoints and one temporary of the widest value.
  return rows * (most + 4 * w.sums.widest * primal);
}

int64_t weight_copies(const PlanRequest& r, at::ScalarType working) {
  int64_t sum = 0;
  for (size_t p = 0; p < r.stored.size(); ++p)
    if (r.stored[p] != working) sum += c10::multiply_integers(r.parameter_shapes[p]) * bytes_of(working);
  return sum;
}

Memory memory_of(const PlanRequest& r, const Walk& w, Pass pass, int64_t k, at::ScalarType working,
                 at::ScalarType primal, int64_t batch) {
  const Totals& t = w.sums;
  const int64_t e = bytes_of(working), pe = bytes_of(primal), n = r.carried > 0 ? r.carried : r.selection->size();
  const int64_t threads = at::get_num_threads();
  Memory m;
  m.library = kLibrary;
  m.weights = weight_copies(r, working) + (primal == working ? 0 : t.largest_weight * pe);
  m.tape = batch * r.tokens * t.tape * e;
  m.primal = tape_peak(w, batch * r.tokens, pe, e) +
             std::max(std::min(primal_logits_bytes(), 3 * batch * r.tokens * t.words * 8),
                      primal_attention_scratch(r, batch, pe));
  m.head = std::min(threads * tangent_logits_bytes(e), 3 * k * r.tokens * t.words * e);
  m.attention = attention_scratch(r, k, e);
  // Temporaries of the cuts of a token-local segment, one a thread.
  const int64_t cuts = std::min(threads * default_cut_rows(at::kCPU), k * r.tokens) * e * 6 * t.widest;
  m.tangents = k * r.tokens * (t.border + (pass == Pass::two_pass ? t.tangent : 0)) * e + cuts;
  m.result = r.beside + n * n * 8 * r.matrices +
             (pass == Pass::gram ? k * k * (2 * (8 + e) + 3 * 8) + k * n * 8 : 3 * k * n * 8);
  return m;
}

}  // namespace

std::string to_string(Pass pass) { return pass == Pass::gram ? "gram" : "two-pass"; }

int64_t precision_columns(int64_t n) { return std::min(n, std::max<int64_t>(4, n / 16)); }

Plan make_plan(const PlanRequest& r) {
  const int64_t n = r.columns > 0 ? r.columns : r.selection->size();
  if (r.pass == Pass::gram && r.directions > 0 && r.directions < n)
    throw std::invalid_argument(
        fmt::format("--pass gram carries all {} weights at once, but --directions is {}", n, r.directions));
  const Walk w = walk(r);
  const Totals& t = w.sums;
  Plan plan;
  plan.precision = r.precision;
  plan.batch = std::min(r.batch, r.windows);
  plan.limit = r.memory_limit;

  // Flops of the whole run. Head: logits once forward and once back.
  const double tokens = static_cast<double>(r.tokens * r.windows),
               head = 2.0 * static_cast<double>(t.words * t.head_width);
  plan.primal_flops = tokens * (t.flops + t.active_flops + 2 * head);
  const double directions = static_cast<double>(n) * tokens;
  const double two_pass = directions * (2 * t.active_flops + 2 * head);
  const double gram =
      directions * (t.active_flops + head + 2.0 * static_cast<double>(n) * static_cast<double>(t.form_width) +
                    std::min(head, 2.0 * static_cast<double>(n * t.words)));
  const auto primal_for = [&](double tangent_flops) {
    if (r.primal) return *r.primal;
    if (r.precision == at::kDouble) return at::kDouble;
    return kDoubleCost * plan.primal_flops < tangent_flops / 4 ? at::kDouble : at::kFloat;
  };
  const auto fits = [&](Pass pass, int64_t k) {
    plan.pass = pass;
    plan.directions = k;
    plan.tangent_flops = pass == Pass::gram ? gram : two_pass;
    plan.primal = primal_for(plan.tangent_flops);
    plan.memory = memory_of(r, w, pass, k, r.precision, plan.primal, plan.batch);
    return plan.memory.total() <= plan.limit;
  };

  const bool gram_wanted =
      r.pass ? *r.pass == Pass::gram : gram <= two_pass && (r.directions == 0 || r.directions >= n);
  bool ok = gram_wanted && fits(Pass::gram, n);
  if (!ok && r.pass != Pass::gram) {
    int64_t k = std::min(n, r.directions > 0 ? r.directions : kMostDirections);
    while (!(ok = fits(Pass::two_pass, k)) && k > 1 && r.directions == 0) k = (k + 1) / 2;
  }
  if (!ok)
    throw std::runtime_error(fmt::format(
        "memory: the smallest plan ({}, {} direction{} at once) needs {:.0f} MiB, {:.0f} MiB are allowed",
        plan.pass == Pass::gram ? "Gram pass" : "two-pass products", plan.directions, plan.directions == 1 ? "" : "s",
        static_cast<double>(plan.memory.total()) / (1 << 20), static_cast<double>(plan.limit) / (1 << 20)));
  const int64_t batches = (r.windows + plan.batch - 1) / plan.batch;
  plan.units = batches * ((n + plan.directions - 1) / plan.directions);

  if (r.measure_precision && r.precision != at::kDouble) {
    PlanRequest one = r;
    one.matrices = 0;
    plan.check = memory_of(one, w, Pass::two_pass, std::min(check_directions, precision_columns(n)), at::kDouble,
                           at::kDouble, 1);
    plan.check.result += n * n * 8 * r.matrices;
    plan.measure_precision = plan.check.total() <= plan.limit;
    if (!plan.measure_precision) plan.check = {};
  }
  return plan;
}

}  // namespace hesper
