#pragma once
// What a run by probes and its pilots share: the job, a window's samples, and the moments of a group of tensors.
#include <algorithm>
#include <optional>

#include "hessian/deflation.h"
#include "model/program.h"
#include "run/diag_plan.h"
#include "run/ledger.h"
#include "run/primal_batches.h"
#include "run/tensor_moments.h"

namespace hesper {

struct DiagJob {
  const Model& model;
  const ResolvedSelection& selection;
  const std::vector<UnitSums>& sums;
  const Windows& windows;
  DiagOptions options;
  const Program& program;

  int64_t b() const { return windows.ids.size(0); }
  /// Of the tensors of a group.
  std::vector<const UnitSums*> sums_of(const ProbeGroup& group) const;
};

/// z (K, n) fp64 of some probes of a window, on the device of the pass, and its parts where it is a sum of two.
struct WindowSamples {
  at::Tensor z, gauss_newton, residual;
};
/// Probes [first, first + count) of window s, by the job's method, in the form's precision; deflation: of P H P
/// (deflation.h).
WindowSamples draw(const DiagJob& job, const TangentPass& pass, const Selection& selection, int64_t window,
                   int64_t place, int64_t first, int64_t count, const RunForm& form,
                   const Deflation* deflation = nullptr);

/// Chunks of at most `directions`.
inline int64_t chunks_of(int64_t rows, int64_t directions) { return (rows + directions - 1) / directions; }

/// A group with the moments of its tensors.
struct Estimate {
  const ProbeGroup& group;
  TensorMoments all;
  std::vector<DiagonalMoments> gauss_newton, residual;  // entries of the parts; split only
  bool deflated;                                        // krylov only, as what follows
  std::optional<Deflation> deflation;
  int64_t spent = 0;             // products a window before the first probe
  nlohmann::json basis;          // for the record
  int64_t probes = 0, next = 0;  // a window: done, of the next round
  std::string outcome;           // why it stopped; empty while it runs

  Estimate(const ProbeGroup& group, const DiagJob& job);
  void begin_visit(int64_t window);
  void add(const WindowSamples& samples);
  NamedTensors sums(const std::string& name);
};

/// Calls f(pass, place, first, count) for the chunks of `rows` directions, at most `directions` each, that the ledger
/// has of window s, with a pass of the group's own depth. losses: (b), where the window's goes with its first step;
/// undefined where it is there already.
template <class F>
void for_chunks(const DiagJob& job, const ProbeGroup& group, PrimalBatches& primal, const Parameters& parameters,
                Ledger& ledger, const at::Tensor& losses, int64_t s, int64_t rows, int64_t directions, F f) {
  if (ledger.skip(s, chunks_of(rows, directions))) return;
  std::optional<Tape> tape;
  std::optional<TangentPass> pass;
  for (int64_t k = 0; k < rows; k += directions) {
    if (!ledger.next(s)) continue;
    if (!pass) {
      tape.emplace(narrowed(primal.tape(s), job.program, group.selection));
      pass.emplace(job.program, parameters, group.selection, *tape);
    }
    if (losses.defined() && ledger.is_first(s)) losses[s].copy_(primal.losses()[s]);
    const int64_t count = std::min(directions, rows - k);
    f(*pass, primal.place(s), k, count);
    ledger.end(s, static_cast<double>(count));
  }
}

/// Flops of one product of one window, and of what `pass` is otherwise.
double direction_flops(const DiagJob& job, const Selection& selection, Pass pass = Pass::two_pass);

}  // namespace hesper
