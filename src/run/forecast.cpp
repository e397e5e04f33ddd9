#include "run/forecast.h"

#include <ATen/Parallel.h>

#include "ops/parameters.h"
#include "primal/primal.h"
#include "run/forecast_walk.h"
#include "run/streamed_weights.h"
#include "tangent/tangent_pass.h"

namespace hesper {
namespace {

// The process with LibTorch loaded and a few small products made: what tiny models peak at (59 to 66 MiB; 62 of them
// are there before anything is read).
constexpr int64_t kLibrary = int64_t{64} << 20;
// On a GPU: cuBLAS's workspaces and the kernels themselves; and the holes that LibTorch's allocator leaves, a tenth of
// what it hands out (measured on an H200: 4 to 15% from 1 to 62 GiB).
constexpr int64_t kDeviceLibrary = int64_t{256} << 20;
constexpr int64_t kHoles = 10;

int64_t bytes_of(at::ScalarType dtype) { return static_cast<int64_t>(c10::elementSize(dtype)); }

/// Held bytes or elements, and the most there ever were.
struct Peak {
  int64_t held = 0, most = 0;
  void add(int64_t size) { held += size, most = std::max(most, held); }
  void touch(int64_t size) { most = std::max(most, held + size); }
};

/// Bytes of the largest copy that Parameters::get makes of the given parameters in the primal pass.
int64_t raised(const RunShapes& r, const RunForm& form, const std::vector<int>& parameters) {
  int64_t most = 0;
  for (int p : parameters)
    if (p >= 0 && (form.streamed || form.primal != form.precision) &&
        (form.primal != r.stored[p] || !r.device.is_cpu()))
      most = std::max(most, c10::multiply_integers(r.parameter_shapes[p]) * bytes_of(form.primal));
  return most;
}

/// Bytes that an op's primal maps hold beside their values.
int64_t primal_scratch(const Walk& w, const RunForm& form, const Op& op) {
  const RunShapes& r = w.run;
  const int64_t e = bytes_of(form.primal);
  return r.device.is_cpu() ? op.primal_scratch_bytes(r.tokens, form.batch, e)
                           : op.device_scratch_bytes(r.tokens, form.batch, e, false);
}
/// True where the maps of this form run as the kernels of fused.h and attention_fused.h.
bool fused_maps(const RunShapes& r, const RunForm& form) { return form.products != Products::full && r.kernels; }

/// The same of the tangent maps.
int64_t tangent_scratch(const Walk& w, const RunForm& form, const Op& op) {
  const RunShapes& r = w.run;
  const int64_t e = bytes_of(form.precision);
  if (r.device.is_cpu()) return op.scratch_bytes(r.tokens, form.directions, e, at::get_num_threads());
  const bool fused = fused_maps(r, form) && !op.composed(r.tokens);
  return op.device_scratch_bytes(r.tokens, form.directions, e, fused);
}

int64_t primal_peak(const Walk& w, const RunForm& form) {
  const RunShapes& r = w.run;
  const auto& ops = r.program->ops();
  const int64_t pe = bytes_of(form.primal), e = bytes_of(form.precision), rows = form.batch * r.tokens;
  const CrossEntropyHead& head = r.program->cross_entropy();
  std::vector<int> last(r.program->values(), -1);
  for (size_t i = 0; i < ops.size(); ++i)
    for (int x : ops[i]->inputs) last[x] = static_cast<int>(i);
  Peak bytes;
  Live values(w.all), bars(w.width);
  for (size_t i = 0; i < ops.size(); ++i) {
    const OpCost& c = w.ops[i];
    values.add(ops[i]->output);
    if (w.mine(*ops[i])) {
      bytes.touch(rows * (values.width() + c.temporaries) * pe + raised(r, form, ops[i]->parameters) +
                  primal_scratch(w, form, *ops[i]));
      if (w.on(static_cast<int>(i)) && !form.spilled) bytes.add(rows * c.kept_forward * pe);
    }
    for (int x : ops[i]->inputs)
      if (last[x] == static_cast<int>(i)) values.drop(x);
  }
  if (r.program->head_device() == w.here) {
    // The head's input and its adjoint stay to the end, U^T p becomes tape.
    bytes.add(rows * 2 * w.head_width * pe);
    const int64_t tiles = head.softcap == 0 ? 3 : 7;  // capped: tanh, z', z'' and a product of them
    bytes.touch(raised(r, form, {head.table}) + tiles * 8 * primal_logits_tile(r.tokens, w.words, r.device));
    bytes.touch(raised(r, form, {head.table}) + rows * 5 * w.head_width * pe);
    bytes.add(rows * (2 * w.head_width + 1) * e);
  }
  for (size_t i = ops.size(); i-- > 0;) {
    if (!w.on(static_cast<int>(i))) continue;
    const OpCost& c = w.ops[i];
    bars.add(ops[i]->output);
    for (int x : ops[i]->inputs) bars.add(x);
    if (w.mine(*ops[i])) {
      bytes.touch(rows * (bars.width() + c.temporaries + std::max<int64_t>(0, c.kept_tape - c.kept_forward)) * pe +
                  raised(r, form, ops[i]->parameters) + primal_scratch(w, form, *ops[i]));
      if (form.spilled)
        bytes.touch(rows * (bars.width() + c.temporaries + std::max(c.kept_tape, c.kept_forward)) * pe +
                    raised(r, form, ops[i]->parameters));
      else
        bytes.add(rows * (c.kept_tape * e - c.kept_forward * pe));
    }
    bars.drop(ops[i]->output);
  }
  return bytes.most;
}

/// All of it, or spilled: the largest segment's.
int64_t tape_bytes(const Walk& w, const RunForm& form) {
  int64_t elements = 0, largest = 0;
  for (const Segment& s : w.run.program->segments()) {
    int64_t mine = 0;
    for (int i = s.begin; i < s.end; ++i)
      if (w.mine(s) && w.on(i)) mine += w.ops[i].kept_tape;
    elements += mine, largest = std::max(largest, mine);
  }
  const int64_t windows = form.spilled ? 1 : form.batch;
  const int64_t head = w.run.program->head_device() == w.here ? 2 * w.head_width + 1 : 0;
  return windows * w.run.tokens * ((form.spilled ? largest : elements) + head) * bytes_of(form.precision);
}

struct Cuts {
  int64_t rows, workers;  // directions x tokens of a cut; cuts at a time
};
Cuts cuts_of(const RunShapes& r, const RunForm& form) {
  const int64_t k = form.directions;
  const int64_t cut = form.pass == Pass::adjoint ? adjoint_cut_rows(k) : default_cut_rows(r.device);
  const int64_t tokens = std::min(r.tokens, cut_tokens(cut, k, r.tokens, r.device));
  const int64_t workers = r.device.is_cpu() ? at::get_num_threads() : 1;
  return {k * tokens, std::min<int64_t>(workers, (r.tokens + tokens - 1) / tokens)};
}

/// Parameters::factor hands it out as it is stored.
bool factor_in_bf16(const RunShapes& r, const RunForm& form, int p) {
  return splits(form.products) && r.stored[p] == at::kBFloat16 &&
         kept_as_stored(r.parameter_shapes[p].size(), r.stored[p], form.precision, r.device);
}

/// Bytes of the logits of a cut in the head, and of a tile's words in working precision where they come in bf16. On a
/// GPU either the fused product writes w p (z_dot - p.z_dot) in pieces and z_dot is nowhere, or z_dot becomes it, and
/// its left factor beside it.
int64_t logits_bytes(const Walk& w, const RunForm& form, int64_t rows, int64_t tokens) {
  const CrossEntropyHead& head = w.run.program->cross_entropy();
  const bool whole = w.run.selection->has(head.table), cpu = w.run.device.is_cpu();
  const int64_t tile = tangent_logits_tile(rows, w.words, whole, w.run.device), e = bytes_of(form.precision);
  const bool fused = fused_maps(w.run, form) && splits(form.products) && !whole && head.softcap == 0 &&
                     w.width[head.input] % 8 == 0 && w.words % 8 == 0;
  const int64_t pieces = form.products == Products::bf16x3 ? 2 : form.products == Products::bf16 ? 1 : 0;
  const int64_t entry = fused ? 2 * pieces : e + (cpu ? 0 : 2 * (pieces == 2 ? 3 : pieces));
  // Capped logits: y_dot beside z_dot and their product; z', z'' and z_bar of one direction.
  const int64_t capped = head.softcap != 0 ? 2 * tile + 3 * tile / form.directions : 0;
  const int64_t words = factor_in_bf16(w.run, form, head.table) ? tile / rows * w.width[head.input] * e : 0;
  return words + tile * entry +
         ((cpu ? 2 : 3) * tile / form.directions + (whole ? 2 * tokens * w.words : 0) + capped) * e;
}

/// Bytes that the cuts of token-local segments hold: every value of a segment and two temporaries of the widest (of a
/// GPU's kernels one); in the last segment the head's logits too.
int64_t cut_bytes(const Walk& w, const RunForm& form) {
  const auto [rows, workers] = cuts_of(w.run, form);
  const int64_t e = bytes_of(form.precision), temporaries = fused_maps(w.run, form) ? 1 : 2;
  int64_t most = 0;
  for (const Segment& s : w.run.program->segments())
    if (s.token_local && w.mine(s))
      most = std::max(most, rows * (w.inside[w.number(s)] + temporaries * w.widest) * e +
                                (w.last(s) ? logits_bytes(w, form, rows, rows / form.directions) : 0));
  return workers * most;
}

/// n x n sums on a CPU; of a chunk its rows, forms and the products at distinct rows x columns of a selected parameter.
int64_t result_bytes(const Walk& w, const RunForm& form) {
  const RunShapes& r = w.run;
  const int64_t n = r.carried > 0 ? r.carried : r.selection->size(), k = form.directions, e = bytes_of(form.precision);
  const int64_t workers = cuts_of(r, form).workers;
  const int64_t sums = r.beside + (r.device.is_cpu() ? n * n * 8 * r.matrices : 0);
  if (form.pass == Pass::primal) return sums;
  int64_t reads = 0, steps = 0;  // elements of a direction; bytes of the largest whole parameter's steps as factors
  for (const SelectedPart& part : r.selection->parts())
    if (part.whole && splits(form.products) && form.pass != Pass::gram) steps = std::max(steps, k * part.size * 10);
  for (const auto& op : r.program->ops())
    for (int p : op->parameters) {
      const SelectedPart* part = p < 0 ? nullptr : r.selection->find(p);
      // In a Gram pass only a layer that tangents reach from below is read.
      const bool moved = std::any_of(op->inputs.begin(), op->inputs.end(), [&](int x) { return w.active[x]; });
      if (part && part->size > 0 && (form.pass != Pass::gram || moved))
        reads = std::max(reads, part->rows.numel() * part->cols.numel() + 2 * part->size);
    }
  const int64_t chunk = form.pass == Pass::gram ? k * k * (2 * 8 + workers * 2 * (8 + e) + 5 * 8) + k * n * 8
                                                : 2 * k * n * 8 * std::max(1, r.matrices);
  return sums + chunk + workers * k * reads * e + steps;
}

/// Bytes of a device's parameters, and of the largest one's copies: its right factor, and in working precision where it
/// is converted at every use.
struct Weights {
  int64_t kept = 0, factor = 0, converted = 0;
};
Weights weights_on(const RunShapes& r, const RunForm& form, at::Device here) {
  Weights w;
  const bool cpu = r.device.is_cpu();
  const std::vector<at::Device> devices = r.program->parameter_devices();
  const int table = r.program->cross_entropy().table;
  for (int p = 0; p < static_cast<int>(r.stored.size()); ++p) {
    if (devices[p] != here || (cpu && r.stored[p] == form.precision)) continue;  // mapped
    const int64_t entries = c10::multiply_integers(r.parameter_shapes[p]);
    const bool streamed = form.streamed && entries > small_parameter;
    const bool as_stored = kept_as_stored(r.parameter_shapes[p].size(), r.stored[p], form.precision, r.device);
    const bool ready = factor_in_bf16(r, form, p);
    const bool read_whole = p == table && (form.pass == Pass::adjoint || r.selection->has(table));
    if (!streamed) w.kept += entries * bytes_of(as_stored ? r.stored[p] : form.precision);
    if ((streamed || as_stored) && (!ready || read_whole))
      w.converted = std::max(w.converted, entries * bytes_of(form.precision));
    if (splits(form.products)) w.factor = std::max(w.factor, entries * (ready ? 4 : 6));
  }
  if (cpu) w.kept += r.loaded;
  if (!cpu && form.streamed) w.kept += bytes_in_flight(*r.program, r.parameter_shapes, r.stored);
  return w;
}

Memory forecast_on(const RunShapes& r, const RunForm& form, at::Device here) {
  const Walk w(r, here);
  Memory m;
  m.library = r.device.is_cpu() ? kLibrary : kDeviceLibrary;
  const Weights weights = weights_on(r, form, here);
  m.weights = weights.kept + weights.factor;
  m.result = result_bytes(w, form);
  m.primal = primal_peak(w, form);
  m.tape = tape_bytes(w, form);
  if (form.pass == Pass::primal) return m;
  const int64_t each = form.pass == Pass::gram       ? gram_tangents(w)
                       : form.pass == Pass::two_pass ? two_pass_tangents(w, form.recompute)
                                                     : adjoint_tangents(w);
  const int64_t value = form.directions * r.tokens * bytes_of(form.precision);  // of width 1
  m.tangents = value * each;
  m.cuts = cut_bytes(w, form) + weights.converted * cuts_of(r, form).workers;
  for (const auto& op : r.program->ops())
    if (w.mine(*op)) m.attention = std::max(m.attention, tangent_scratch(w, form, *op));
  if (!r.device.is_cpu()) m.library += (m.total() - m.library) / kHoles;
  return m;
}

}  // namespace

std::vector<Memory> forecast_devices(const RunShapes& r, const RunForm& form) {
  std::vector<Memory> out;
  for (at::Device device : r.program->devices()) out.push_back(forecast_on(r, form, device));
  return out;
}

Memory forecast_memory(const RunShapes& r, const RunForm& form) {
  const std::vector<Memory> all = forecast_devices(r, form);
  return *std::max_element(all.begin(), all.end(),
                           [](const Memory& a, const Memory& b) { return a.total() < b.total(); });
}

RunFlops count_flops(const RunShapes& r) {
  const Walk w(r, r.device);
  RunFlops f;
  f.head = 2.0 * static_cast<double>(w.words) * static_cast<double>(w.head_width);
  f.head_pairs = 2.0 * static_cast<double>(w.words);
  for (const Segment& s : r.program->segments())
    for (int i = s.begin; i < s.end; ++i) {
      const Flops& op = w.ops[i].flops;
      f.primal += op.forward;
      if (!w.on(i)) continue;
      f.primal += op.adjoint;
      f.adjoint += op.adjoint;
      f.tangent += op.tangent;
      f.adjoint_tangent += op.adjoint_tangent;
      f.form += op.form;
      f.form_pairs += 2.0 * static_cast<double>(w.ops[i].form_width);
      if (s.token_local && !w.last(s)) f.again += op.tangent;
    }
  return f;
}

}  // namespace hesper
