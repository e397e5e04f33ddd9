#pragma once
// Primal passes of a run, a batch of windows each, made when a window of another batch is asked for.
#include <optional>

#include "model/model.h"
#include "primal/primal.h"
#include "run/forecast.h"
#include "text/windows.h"

namespace hesper {

class PrimalBatches {
 public:
  /// form: batch, primal and spilled. All other arguments outlive it; `along` as run_primal has it.
  PrimalBatches(const Program& program, const Parameters& parameters, const Selection& selection,
                const Windows& windows, const RunForm& form, const Directions* along = nullptr);

  /// Tape of the batch that holds `window`; valid until a window of another batch is asked for.
  const Tape& tape(int64_t window);
  /// Place of `window` in that tape.
  int64_t place(int64_t window) const { return window % form_.batch; }

  const at::Tensor& losses() const { return losses_; }  // (b) fp64, of the windows met so far
  double loss() const;                                  // sum of cross entropies / predicted tokens
  double seconds() const { return seconds_; }           // in primal passes

 private:
  const Program& program_;
  const Parameters& parameters_;
  const Selection& selection_;
  const Windows& windows_;
  RunForm form_;
  const Directions* along_;
  at::Tensor losses_;
  double seconds_ = 0;
  int64_t held_ = -1;  // number of the batch on the tape
  std::optional<Tape> tape_;
};

/// Sum of cross entropies / predicted tokens, of the means (b) over each window's counted tokens.
double mean_loss(const at::Tensor& losses, const Windows& windows);

/// Throws std::runtime_error naming the window (of all available) where `t` holds NaN or infinity.
void require_finite(const at::Tensor& t, int64_t window);

}  // namespace hesper
