#include "primal/primal.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <stdexcept>

#include "ops/experts.h"
#include "ops/host_copy.h"
#include "ops/readout.h"

namespace hesper {
namespace {

/// Index of the last op that reads each value; the head counts as one op more.
std::vector<int> last_reader(const Program& program) {
  std::vector<int> last(program.values(), -1);
  for (int i = 0; i < static_cast<int>(program.ops().size()); ++i)
    for (int x : program.ops()[i]->inputs) last[x] = i;
  last[program.cross_entropy().input] = static_cast<int>(program.ops().size());
  return last;
}

/// In stream order: what goes back to the GPU on the same stream is whole.
Kept all_on_host(const Kept& kept) {
  Kept out;
  for (const Tensor& t : kept) out.push_back(on_host(t, false));
  return out;
}

/// Runs the ops from `begin` on over the `values` that stand before it and hands back the head's input; values are
/// dropped after their last reader. `see` is called before each op with its number and all values that stand.
Tensor forward_ops(const Program& program, Primal& p, const std::vector<char>& active, std::vector<Kept>* kept,
                   const std::function<void(int, const Tensors&)>& see = {}, int begin = 0, Tensors values = {},
                   bool spilled = false) {
  const std::vector<int> last = last_reader(program);
  values.resize(program.values());
  for (int i = begin; i < static_cast<int>(program.ops().size()); ++i) {
    const Op& op = *program.ops()[i];
    if (see) see(i, values);
    Tensors x;
    for (int v : op.inputs) x.push_back(values[v] = values[v].to(op.device));
    Kept mine;
    p.keep = kept && is_active(op, active, p.selection);
    values[op.output] = op.forward(p, x, mine);
    if (spilled) mine = all_on_host(mine);
    if (kept) (*kept)[i] = std::move(mine);
    for (int v : op.inputs)
      if (last[v] == i) values[v] = Tensor();
  }
  return values[program.cross_entropy().input].to(program.head_device());
}

void lower(Kept& kept, at::ScalarType dtype) {
  for (Tensor& t : kept)
    if (t.defined()) t = t.to(dtype);
}

}  // namespace

Tokens make_tokens(const Tensor& ids, const Tensor& labels, at::Device device) {
  const int64_t b = ids.size(0), t = ids.size(1);
  const Tensor next = at::full({b, t}, -100, labels.options());
  if (t > 1) next.narrow(1, 0, t - 1).copy_(labels.narrow(1, 1, t - 1));
  const Tensor counts = next.ge(0), per_window = counts.sum(1, true);
  for (int64_t s = 0; s < b; ++s)
    if (per_window[s].item<int64_t>() == 0)
      throw std::invalid_argument(
          fmt::format("window {} has 0 predicted tokens out of {}: no loss to differentiate", s, t));
  const Tensor weights = counts.to(at::kDouble) / per_window.to(at::kDouble);
  return {b, t, 0, ids.flatten().to(device), next.clamp_min(0).flatten().to(device), weights.flatten().to(device)};
}

int64_t Tape::bytes() const {
  int64_t sum = 0;
  const auto count = [&](const Kept& kept) {
    for (const Tensor& t : kept)
      if (t.defined()) sum += t.numel() * static_cast<int64_t>(t.element_size());
  };
  for (const Kept& kept : ops) count(kept);
  count(head);
  return sum;
}

bool is_active(const Op& op, const std::vector<char>& active, const Selection& selection) {
  for (int p : op.parameters)
    if (p >= 0 && selection.has(p)) return true;
  for (int v : op.inputs)
    if (active[v]) return true;
  return false;
}

unsigned active_inputs(const Op& op, const std::vector<char>& active) {
  unsigned bits = 0;
  for (size_t i = 0; i < op.inputs.size(); ++i)
    if (active[op.inputs[i]]) bits |= 1u << i;
  return bits;
}

std::vector<char> active_values(const Program& program, const Selection& selection) {
  std::vector<char> active(program.values(), 0);
  for (const auto& op : program.ops()) active[op->output] = is_active(*op, active, selection);
  return active;
}

Tape run_primal(const Program& program, const Parameters& parameters, const Selection& selection, const Tokens& tokens,
                at::ScalarType precision, const Directions* along, bool spilled) {
  Tape tape;
  tape.tokens = tokens;
  tape.active = active_values(program, selection);
  tape.ops.resize(program.ops().size());
  Primal p{tokens, parameters, selection, precision};
  Readout gradient = along ? Readout(*along, tokens.sequences, parameters.device())
                           : Readout(selection, tokens.sequences, parameters.device());

  const Tensor last = forward_ops(program, p, tape.active, &tape.ops, {}, 0, {}, spilled);
  p.keep = true;
  const CrossEntropyHead& head = program.cross_entropy();
  const Tokens there = tokens.to(program.head_device());
  auto [losses, x_bar] = head.forward_adjoint({there, parameters, selection, precision}, last, tape.head, gradient);
  tape.losses = losses.to(parameters.device());
  lower(tape.head, parameters.working());

  Tensors adjoints(program.values());
  adjoints[head.input] = x_bar;
  for (int i = static_cast<int>(program.ops().size()) - 1; i >= 0; --i) {
    const Op& op = *program.ops()[i];
    if (!tape.active[op.output]) continue;
    const unsigned wanted = active_inputs(op, tape.active);
    if (spilled) tape.ops[i] = on_device(tape.ops[i], op.device);
    const auto take = [&](int v) {
      const Tensor bar = std::exchange(adjoints[v], Tensor());
      return bar.defined() ? bar.to(op.device) : bar;
    };
    const Tensors bars = op.adjoint(p, take(op.output), wanted, tape.ops[i], gradient);
    for (size_t k = 0; k < op.inputs.size(); ++k)
      if (wanted >> k & 1u) adjoints[op.inputs[k]] = plus(take(op.inputs[k]), bars[k]);
    lower(tape.ops[i], parameters.working());
    if (spilled) tape.ops[i] = all_on_host(tape.ops[i]);
  }
  tape.gradient = gradient.values();
  return tape;
}

Tape narrowed(const Tape& tape, const Program& program, const Selection& fewer) {
  Tape out = tape;
  out.active = active_values(program, fewer);
  return out;
}

namespace {
Tensor losses_of(const Program& program, Primal& p, const Tensor& last) {
  Kept kept;
  const Selection nothing;
  Readout gradient(nothing, p.tokens.sequences, p.parameters.device());
  const Tokens there = p.tokens.to(program.head_device());
  return program.cross_entropy()
      .forward_adjoint({there, p.parameters, p.selection, p.precision, false}, last, kept, gradient)
      .losses.to(p.parameters.device());
}
}  // namespace

std::vector<const Op*> linear_layers_of(const Program& program, const Selection& selection) {
  std::vector<const Op*> out;
  for (const SelectedPart& part : selection.parts()) {
    const auto reads = [&](const auto& op) { return op->name() == "linear" && op->parameters[0] == part.parameter; };
    const auto op = std::find_if(program.ops().begin(), program.ops().end(), reads);
    if (op == program.ops().end())
      throw std::invalid_argument(fmt::format("{}: not the matrix of a linear layer, which alone has an input",
                                              program.parameter_names()[part.parameter]));
    out.push_back(op->get());
  }
  return out;
}

LayerInputs run_layer_inputs(const Program& program, const Parameters& parameters, const Selection& selection,
                             const Tokens& tokens, at::ScalarType precision) {
  const std::vector<const Op*> layers = linear_layers_of(program, selection);
  LayerInputs out;
  out.inputs.resize(layers.size());
  const auto see = [&](int op, const Tensors& values) {
    for (size_t i = 0; i < layers.size(); ++i)
      if (program.ops()[op].get() == layers[i]) out.inputs[i] = values[layers[i]->inputs[0]];
  };
  const Selection nothing;
  Primal p{tokens, parameters, nothing, precision, false};
  const Tensor last = forward_ops(program, p, std::vector<char>(program.values(), 0), nullptr, see);
  out.losses = losses_of(program, p, last);
  return out;
}

Tensor run_forward(const Program& program, const Parameters& parameters, const Tokens& tokens,
                   at::ScalarType precision) {
  const Selection nothing;
  Primal p{tokens, parameters, nothing, precision, false};
  return losses_of(program, p, forward_ops(program, p, std::vector<char>(program.values(), 0), nullptr));
}

std::optional<RouterMargin> router_margin(const Program& program, const Parameters& parameters, const Tokens& tokens,
                                          at::ScalarType precision) {
  std::optional<RouterMargin> out;
  const auto see = [&](int op, const Tensors& values) {
    const auto* input = dynamic_cast<const ExpertInput*>(program.ops()[op].get());
    if (input == nullptr) return;
    const Tensor margin = input->margin(values[input->inputs[1]]);
    if (!margin.defined()) return;
    const double least = margin.min().item<double>();
    if (!out) out = RouterMargin{least, 0};
    out->smallest = std::min(out->smallest, least);
    out->tokens += margin.numel();
  };
  const Selection nothing;
  Primal p{tokens, parameters, nothing, precision, false};
  forward_ops(program, p, std::vector<char>(program.values(), 0), nullptr, see);
  return out;
}

namespace {
/// The first op that reads one of the parameters; the head counts as one op more.
int first_reader(const Program& program, const std::vector<int>& parameters) {
  const auto reads = [&](int p) { return std::find(parameters.begin(), parameters.end(), p) != parameters.end(); };
  const auto& ops = program.ops();
  const auto found = std::find_if(ops.begin(), ops.end(), [&](const auto& op) {
    return std::any_of(op->parameters.begin(), op->parameters.end(), reads);
  });
  return static_cast<int>(found - ops.begin());
}
}  // namespace

void run_variants(const Program& program, const Parameters& base, const std::vector<std::vector<int>>& changed,
                  const Tokens& tokens, at::ScalarType precision, const std::function<Parameters(int64_t)>& variant,
                  const std::function<void(int64_t, const Tensor&)>& take, const std::function<bool(int64_t)>& wanted) {
  const Selection nothing;
  const std::vector<char> inactive(program.values(), 0);
  std::vector<int> first;
  for (const std::vector<int>& parameters : changed) first.push_back(first_reader(program, parameters));
  const auto branch_off = [&](int op, const auto& last_value) {
    for (size_t k = 0; k < first.size(); ++k) {
      if (first[k] != op || (wanted && !wanted(static_cast<int64_t>(k)))) continue;
      const Parameters parameters = variant(static_cast<int64_t>(k));
      Primal p{tokens, parameters, nothing, precision, false};
      take(static_cast<int64_t>(k), losses_of(program, p, last_value(p)));
    }
  };
  Primal p{tokens, base, nothing, precision, false};
  const auto see = [&](int op, const Tensors& values) {
    branch_off(op, [&](Primal& q) { return forward_ops(program, q, inactive, nullptr, {}, op, values); });
  };
  const Tensor last = forward_ops(program, p, inactive, nullptr, see);
  branch_off(static_cast<int>(program.ops().size()), [&](Primal&) { return last; });
}

}  // namespace hesper
