#include "run/fisher_samples.h"

#include <algorithm>
#include <optional>

#include "run/primal_batches.h"
#include "tangent/tangent_pass.h"

namespace hesper {

std::string to_string(FisherKind kind) {
  switch (kind) {
    case FisherKind::batch:
      return "batch";
    case FisherKind::sequence:
      return "sequence";
    case FisherKind::token:
      return "token";
    case FisherKind::gauss_newton:
      return "gauss-newton";
    default:
      return "input-gram";
  }
}

bool is_sampled(FisherKind kind) { return kind == FisherKind::token || kind == FisherKind::gauss_newton; }

int64_t FisherSampler::units() const {
  const int64_t b = windows.ids.size(0);
  return kind == FisherKind::batch ? (b + form.batch - 1) / form.batch : b;
}

int64_t FisherSampler::steps() const { return is_sampled(kind) ? (probes + form.directions - 1) / form.directions : 1; }

void FisherSampler::run(const Wanted& wanted, const Take& take, Tensors* grams) const {
  if (kind == FisherKind::input_gram) return run_inputs(wanted, take, grams);
  return is_sampled(kind) ? run_adjoints(wanted, take) : run_gradients(wanted, take);
}

void FisherSampler::run_adjoints(const Wanted& wanted, const Take& take) const {
  PrimalBatches batches(program, parameters, selection, windows, form);
  AdjointStart start{kind == FisherKind::token ? AdjointStart::Kind::token_signs : draw, seed, 0, 0, 0};
  for (int64_t s = 0; s < units(); ++s) {
    std::optional<TangentPass> pass;
    start.window = windows.index[static_cast<size_t>(s)];
    for (start.first_probe = 0; start.first_probe < probes; start.first_probe += form.directions) {
      if (!wanted(s)) continue;
      if (!pass) pass.emplace(program, parameters, selection, batches.tape(s), adjoint_cut_rows(form.directions));
      start.count = std::min(form.directions, probes - start.first_probe);
      take(s, pass->adjoint(start, batches.place(s)).square_(), batches.losses().narrow(0, s, 1));
    }
  }
}

void FisherSampler::run_gradients(const Wanted& wanted, const Take& take) const {
  const int64_t b = windows.ids.size(0), of_unit = kind == FisherKind::batch ? form.batch : 1;
  PrimalBatches batches(program, parameters, selection, windows, form);
  for (int64_t unit = 0; unit < units(); ++unit) {
    if (!wanted(unit)) continue;
    const int64_t first = unit * of_unit, count = std::min(of_unit, b - first);
    const Tensor mine = batches.tape(first).gradient.narrow(0, batches.place(first), count);
    take(unit, mine.mean(0, true).square_(), batches.losses().narrow(0, first, count));
  }
}

void FisherSampler::run_inputs(const Wanted& wanted, const Take& take, Tensors* grams) const {
  const int64_t b = windows.ids.size(0), tokens = windows.ids.size(1);
  const auto share = static_cast<double>(tokens);
  for (int64_t s = 0; s < b; ++s) {
    if (!wanted(s)) continue;
    const LayerInputs read = run_layer_inputs(
        program, parameters, selection,
        make_tokens(windows.ids.narrow(0, s, 1), windows.labels.narrow(0, s, 1), parameters.device()), form.primal);
    Tensors z;
    for (size_t i = 0; i < selection.parts().size(); ++i) {
      const SelectedPart& part = selection.parts()[i];
      const Tensor x = read.inputs[i].to(at::kDouble);
      if (grams && x.is_cpu()) (*grams)[i].addmm_(x.t(), x, 1, 1 / (share * static_cast<double>(b)));
      if (grams && !x.is_cpu()) (*grams)[i].add_(x.t().mm(x).cpu(), 1 / (share * static_cast<double>(b)));
      const Tensor diagonal = x.square().sum(0).div_(share);  // (in)
      z.push_back(diagonal.index_select(0, part.entries().remainder(part.columns)));
    }
    take(s, at::cat(z).unsqueeze(0), read.losses.cpu());
  }
}

}  // namespace hesper
