#include "hessian/export_script.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "model/build_program.h"
#include "tangent/tangent_pass.h"

namespace hesper {
namespace {

constexpr const char* kHead = R"py(#!/usr/bin/env python3
"""Repeats hesper's exact derivatives with transformers and PyTorch's double backward, in float64, and prints the
differences. Needs torch and transformers:  python check.py [model folder]"""
import importlib
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the model is a local folder
import torch
import transformers

)py";

constexpr const char* kBody = R"py(
# The code of transformers names torch.float32 in its norms, rotary tables and softmax whatever the model's dtype. The
# modules that hold it are handed a `torch` whose float32 is float64, and `x.float()` is float64 too; the loss is written
# out below.
class TorchOfDoubles:
    float = float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


folder = sys.argv[1] if len(sys.argv) > 1 else MODEL
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double
kind = transformers.AutoConfig.from_pretrained(folder).model_type.removesuffix("_text")
for module in ("modeling_rope_utils", f"models.{kind}.modeling_{kind}"):
    importlib.import_module("transformers." + module).torch = TorchOfDoubles()
model = transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float64, attn_implementation="eager").eval()
low = [n for n, t in (*model.named_parameters(), *model.named_buffers()) if t.is_floating_point() and t.dtype != torch.float64]
if low:
    sys.exit(f"not float64: {low}")
for module in model.modules():  # nn.Embedding would drop the gradient of its padding row
    if isinstance(module, torch.nn.Embedding):
        module.padding_idx = None

parameters = dict(model.named_parameters())
names = list(SELECTION)
chosen = {n: torch.cat([torch.arange(b, e) for b, e in SELECTION[n]]) for n in names}
place = [(names.index(n), i) for n, i in ENTRIES]
m, b = len(ENTRIES), len(IDS)
loss, gradient, columns = 0.0, 0.0, [0.0] * m  # sums over windows; gradient and columns over the selection
block = torch.zeros(m, m)


def over_selection(grads):
    return torch.cat([g.flatten()[chosen[n]] for n, g in zip(names, grads)])


for ids, labels in zip(IDS, LABELS):
    z = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    if z.dtype != torch.float64:
        sys.exit("logits are not float64")
    one = torch.nn.functional.cross_entropy(z[:-1], torch.tensor(labels[1:]))  # mean over counted tokens; -100: not counted
    grads = torch.autograd.grad(one, [parameters[n] for n in names], create_graph=True)
    loss += one.item() / b
    gradient = gradient + over_selection(grads).detach() / b
    for i, (p, index) in enumerate(place):
        second = torch.autograd.grad(grads[p].flatten()[index], [parameters[n] for n in names], retain_graph=True, materialize_grads=True)
        columns[i] = columns[i] + over_selection(second) / b
        block[i] += torch.stack([second[q].flatten()[j] for q, j in place]) / b
    del grads, one, z

starts = dict(zip(names, torch.tensor([0] + [len(chosen[n]) for n in names]).cumsum(0).tolist()))
rows = [("loss", LOSS, loss, abs(LOSS)), ("|gradient| over the selection", GRADIENT_NORM, gradient.norm().item(), GRADIENT_NORM)]
for (name, index), expected in zip(ENTRIES, GRADIENT):
    at = starts[name] + (chosen[name] == index).nonzero().item()
    rows.append((f"gradient   {name}[{index}]", expected, gradient[at].item(), GRADIENT_NORM))
for (name, index), expected, column in zip(ENTRIES, COLUMN_NORMS, columns):
    rows.append((f"|H column| {name}[{index}]", expected, column.norm().item(), expected))
scale = max(max(map(abs, row)) for row in HESSIAN)
for i in range(m):
    for j in range(i, m):
        rows.append((f"H[{i}, {j}]", HESSIAN[i][j], block[i, j].item(), scale))

print(f"{folder}: {kind}, {b} windows of {len(IDS[0])} tokens, {len(gradient)} selected weights; torch {torch.__version__}, transformers {transformers.__version__}")
width = max(len(what) for what, *_ in rows)
print(f"{'':{width}} {'hesper ' + VERSION:>24} {'PyTorch':>24} {'difference':>11}")
worst = 0.0
for what, ours, theirs, unit in rows:
    error = abs(ours - theirs) / (unit or 1.0)
    worst = max(worst, error) if error == error else float("inf")
    print(f"{what:{width}} {ours:>24.16e} {theirs:>24.16e} {error:>11.1e}")
print("Differences are relative: of gradient entries to |gradient|, of H[i, j] (rows and columns: the entries above) to the largest of them.")
print(f"largest difference {worst:.1e}: " + ("agrees" if worst <= TOLERANCE else f"DISAGREES (tolerance {TOLERANCE:.0e})"))
sys.exit(0 if worst <= TOLERANCE else 1)
)py";

/// A string literal of Python (JSON's escapes are Python's).
std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

/// "[a, b, ...]" with lines of about 120 characters.
std::string listed(const std::vector<std::string>& items, const std::string& indent = "    ") {
  std::string out = "[", line;
  for (size_t i = 0; i < items.size(); ++i) {
    const std::string next = items[i] + (i + 1 < items.size() ? ", " : "");
    if (line.size() + next.size() > 116) {
      out += line + "\n" + indent;
      line.clear();
    }
    line += next;
  }
  return out + line + "]";
}

template <class T>
std::vector<std::string> texts(const at::Tensor& values) {
  const at::Tensor flat = values.flatten().contiguous().cpu();
  std::vector<std::string> out;
  for (int64_t i = 0; i < flat.numel(); ++i) {
    const T x = flat.const_data_ptr<T>()[i];
    if constexpr (std::is_floating_point_v<T>)
      out.push_back(fmt::format("{:.17g}", x));
    else
      out.push_back(fmt::format("{}", x));
  }
  return out;
}

template <class T>
std::string rows_of(const at::Tensor& matrix) {
  std::string out = "[";
  for (int64_t i = 0; i < matrix.size(0); ++i) out += (i ? ",\n    " : "\n    ") + listed(texts<T>(matrix[i]), "     ");
  return out + "]";
}

/// Flat indices as ranges (begin, end), in the order of the selection.
std::string ranges_of(const SelectedPart& part) {
  const at::Tensor flat = part.entries().contiguous().cpu();
  const int64_t* index = flat.const_data_ptr<int64_t>();
  std::vector<std::string> out;
  for (int64_t i = 0, end; i < part.size; i = end) {
    for (end = i + 1; end < part.size && index[end] == index[end - 1] + 1;) ++end;
    out.push_back(fmt::format("({}, {})", index[i], index[end - 1] + 1));
  }
  return listed(out, "        ");
}

/// Half of them where the gradient is largest, the others spread evenly.
std::vector<int64_t> choose_entries(const at::Tensor& gradient, int64_t m) {
  const int64_t n = gradient.size(0);
  m = std::min(m, n);
  std::set<int64_t> chosen;
  const at::Tensor largest = std::get<1>(gradient.abs().topk((m + 1) / 2)).cpu();
  for (int64_t i = 0; i < largest.numel(); ++i) chosen.insert(largest[i].item<int64_t>());
  for (int64_t i = 0; i < n && static_cast<int64_t>(chosen.size()) < m; ++i) {
    const int64_t candidate = i < m ? i * n / m : i;
    chosen.insert(candidate);
  }
  return {chosen.begin(), chosen.end()};
}

}  // namespace

std::string check_script(const Model& model, const Selection& selection, const Windows& windows,
                         const ScriptOptions& options) {
  const at::NoGradGuard no_grad;
  if (selection.size() == 0) throw std::invalid_argument("check script: no weight is selected");
  if (options.windows < 1 || options.windows > windows.ids.size(0))
    throw std::invalid_argument(
        fmt::format("check script: {} windows asked for, {} are there", options.windows, windows.ids.size(0)));
  if (options.entries < 1 || options.entries > 64)
    throw std::invalid_argument(
        fmt::format("check script: {} entries asked for, 1 to 64 are possible", options.entries));

  if (model.checkpoint.format() == "GGUF") {
    throw std::invalid_argument(
        fmt::format("check script: {} is a GGUF file, and the script needs a folder in Hugging Face layout",
                    model.checkpoint.config_file()));
  }

  if (model.config().language_part)
    throw std::invalid_argument(
        fmt::format("check script: {} is a multimodal checkpoint, and the script needs a text model's folder",
                    model.checkpoint.config_file()));
  for (const SelectedPart& part : selection.parts())
    if (const ParameterSpec& spec = model.weights.specs.at(part.parameter); spec.piece)
      throw std::invalid_argument(fmt::format("check script: {} is a piece of {}, and the script names whole tensors",
                                              spec.name, spec.piece->tensor));

  const Selection mine = selection.to(options.device);
  const Program program = build_program(model.config(), windows.ids.size(1), options.device);
  const Parameters parameters(model.weights.values, at::kDouble, options.device);
  const at::Tensor ids = windows.ids.narrow(0, 0, options.windows),
                   labels = windows.labels.narrow(0, 0, options.windows);
  const Tape tape = run_primal(program, parameters, mine, make_tokens(ids, labels, options.device), at::kDouble);
  const TangentPass pass(program, parameters, mine, tape);
  const at::Tensor gradient = tape.gradient.mean(0).cpu();
  const std::vector<int64_t> entries = choose_entries(gradient, options.entries);
  const at::Tensor rows = at::tensor(entries, at::kLong);
  std::vector<at::Tensor> block, norms;
  for (const int64_t row : entries) {
    const Directions unit = Directions::units(mine, row, row + 1, at::kDouble);
    at::Tensor column = pass.product(unit, 0, Curvature::hessian);
    for (int64_t s = 1; s < options.windows; ++s) column += pass.product(unit, s, Curvature::hessian);
    column = column[0].cpu() / options.windows;
    block.push_back(column.index_select(0, rows));
    norms.push_back(column.norm());
  }

  const auto name_of = [&](const SelectedPart& part) { return quoted(model.weights.specs.at(part.parameter).name); };
  std::string chosen;
  std::vector<std::string> named;
  for (const SelectedPart& part : selection.parts()) {
    chosen += fmt::format("\n    {}: {},", name_of(part), ranges_of(part));
    for (const int64_t row : entries)
      if (row >= part.begin && row < part.begin + part.size)
        named.push_back(fmt::format("({}, {})", name_of(part),
                                    part.entries(row - part.begin, row - part.begin + 1).item<int64_t>()));
  }
  std::string data;
  const auto set = [&](const std::string& name, const std::string& value) { data += name + " = " + value + "\n"; };
  set("VERSION", quoted(HESPER_VERSION));
  set("MODEL", quoted(std::filesystem::absolute(model.checkpoint.folder()).lexically_normal().string()));
  data += "# sha256 of the weights: " + model.checkpoint.sha256() + "\n";
  set("IDS", rows_of<int64_t>(ids));
  set("LABELS", at::equal(ids, labels) ? "IDS" : rows_of<int64_t>(labels));
  data += "# Flat indices [begin, end) into each parameter, and the entries that are compared one by one.\n";
  set("SELECTION", "{" + chosen + "}");
  set("ENTRIES", listed(named));
  data += "# hesper's numbers, fp64: mean over the windows of each one's mean cross entropy, and its derivatives.\n";
  set("LOSS", fmt::format("{:.17g}", tape.losses.mean().item<double>()));
  set("GRADIENT_NORM", fmt::format("{:.17g}", gradient.norm().item<double>()));
  set("GRADIENT", listed(texts<double>(gradient.index_select(0, rows))));
  set("HESSIAN", rows_of<double>(at::stack(block)));
  set("COLUMN_NORMS", listed(texts<double>(at::stack(norms))));
  data += "# Two orders of summation in float64 differ by some thousand eps times the conditioning of the model.\n";
  set("TOLERANCE", "1e-9");
  return kHead + data + kBody;
}

}  // namespace hesper
