#include "run/primal_batches.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "run/clock.h"

namespace hesper {

PrimalBatches::PrimalBatches(const Program& program, const Parameters& parameters, const Selection& selection,
                             const Windows& windows, const RunForm& form, const Directions* along)
    : program_(program),
      parameters_(parameters),
      selection_(selection),
      windows_(windows),
      form_(form),
      along_(along),
      losses_(at::zeros({windows.ids.size(0)}, at::kDouble)) {}

const Tape& PrimalBatches::tape(int64_t window) {
  if (window / form_.batch == held_) return *tape_;
  const Clock::time_point begin = Clock::now();
  tape_.reset();
  held_ = window / form_.batch;
  const int64_t first = held_ * form_.batch, count = std::min(form_.batch, windows_.ids.size(0) - first);
  const Tokens tokens =
      make_tokens(windows_.ids.narrow(0, first, count), windows_.labels.narrow(0, first, count), parameters_.device());
  tape_.emplace(run_primal(program_, parameters_, selection_, tokens, form_.primal, along_, form_.spilled));
  losses_.narrow(0, first, count).copy_(tape_->losses);
  for (int64_t s = 0; s < count; ++s) require_finite(tape_->losses[s], windows_.index[first + s]);
  seconds_ += seconds_since(begin);
  return *tape_;
}

double PrimalBatches::loss() const { return mean_loss(losses_, windows_); }

double mean_loss(const at::Tensor& losses, const Windows& windows) {
  const at::Tensor counts = windows.labels.slice(1, 1).ge(0).sum(1).to(at::kDouble);
  return ((losses * counts).sum() / counts.sum()).item<double>();
}

void require_finite(const at::Tensor& t, int64_t window) {
  if (!t.isfinite().all().item<bool>())
    throw std::runtime_error(
        fmt::format("window {}: the result is not finite (overflow in the model or its weights)", window));
}

}  // namespace hesper
