#include "run/fisher_samples.h"

#include <algorithm>

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
  return kind == FisherKind::batch ? (b + batch - 1) / batch : b;
}

double FisherSampler::run(const std::function<void(int64_t, const Tensor&)>& take, Tensors* grams) const {
  if (kind == FisherKind::input_gram) return run_inputs(take, grams);
  return is_sampled(kind) ? run_adjoints(take) : run_gradients(take);
}

double FisherSampler::run_adjoints(const std::function<void(int64_t, const Tensor&)>& take) const {
  PrimalBatches batches(program, parameters, selection, windows, batch, primal);
  AdjointStart start{kind == FisherKind::token ? AdjointStart::Kind::token_signs : draw, seed, 0, 0, 0};
  for (int64_t s = 0; s < units(); ++s) {
    const TangentPass pass(program, parameters, selection, batches.tape(s), adjoint_cut_rows(directions));
    start.window = windows.index[static_cast<size_t>(s)];
    for (start.first_probe = 0; start.first_probe < probes; start.first_probe += directions) {
      start.count = std::min(directions, probes - start.first_probe);
      take(s, pass.adjoint(start, batches.place(s)).square_());
    }
  }
  return batches.loss();
}

double FisherSampler::run_gradients(const std::function<void(int64_t, const Tensor&)>& take) const {
  const int64_t b = windows.ids.size(0), of_unit = kind == FisherKind::batch ? batch : 1;
  PrimalBatches batches(program, parameters, selection, windows, batch, primal);
  for (int64_t unit = 0; unit < units(); ++unit) {
    const int64_t first = unit * of_unit, count = std::min(of_unit, b - first);
    const Tensor mine = batches.tape(first).gradient.narrow(0, batches.place(first), count);
    take(unit, mine.mean(0, true).square_());
  }
  return batches.loss();
}

double FisherSampler::run_inputs(const std::function<void(int64_t, const Tensor&)>& take, Tensors* grams) const {
  const int64_t b = windows.ids.size(0), tokens = windows.ids.size(1);
  const auto share = static_cast<double>(tokens);
  Tensor losses = at::zeros({b}, at::kDouble);
  for (int64_t s = 0; s < b; ++s) {
    const LayerInputs read = run_layer_inputs(
        program, parameters, selection,
        make_tokens(windows.ids.narrow(0, s, 1), windows.labels.narrow(0, s, 1), parameters.device()), primal);
    losses[s].copy_(read.losses[0]);
    Tensors z;
    for (size_t i = 0; i < selection.parts().size(); ++i) {
      const SelectedPart& part = selection.parts()[i];
      const Tensor x = read.inputs[i].to(at::kDouble);
      if (grams && x.is_cpu()) (*grams)[i].addmm_(x.t(), x, 1, 1 / (share * static_cast<double>(b)));
      if (grams && !x.is_cpu()) (*grams)[i].add_(x.t().mm(x).cpu(), 1 / (share * static_cast<double>(b)));
      const Tensor diagonal = x.square().sum(0).div_(share);  // (in)
      z.push_back(diagonal.index_select(0, part.flat.remainder(part.columns)));
    }
    take(s, at::cat(z).unsqueeze(0));
  }
  return mean_loss(losses, windows);
}

}  // namespace hesper
