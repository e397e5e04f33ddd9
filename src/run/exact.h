#pragma once
// The exact Hessian of the selected weights over b windows: H = mean of the windows' own Hessians.
#include <functional>
#include <optional>

#include "model/model.h"
#include "run/plan.h"
#include "run/run_control.h"
#include "text/windows.h"

namespace hesper {

enum class Engine { hesper, autograd };

struct ExactOptions : EngineOptions {
  std::vector<Curvature> curvatures = {Curvature::hessian};  // which of H, G, R = H - G to keep
  Engine engine = Engine::hesper;
  std::optional<Pass> pass;  // unset: as Plan chooses
  bool full_errors = false;  // standard error of every entry
};

/// One matrix of the result, of the mean cross entropy.
struct ExactBlock {
  Curvature kind = Curvature::hessian;
  at::Tensor matrix;                     // (n, n) fp64
  at::Tensor standard_error;             // (n, n) fp64 of the mean over windows; defined with full_errors and b >= 2
  std::optional<double> data_error;      // sqrt((sum_s |H_s|^2 - b |H|^2) / (b (b-1) |H|^2)), b >= 2
  std::optional<double> symmetry_error;  // |H - H^T|_F / |H|_F; two-pass only (the Gram pass is symmetric)
};

struct ExactResult {
  std::vector<ExactBlock> blocks;  // as ExactOptions::curvatures
  at::Tensor gradient;             // (n) fp64
  at::Tensor losses;               // (b) fp64, per window
  at::Tensor weights;              // (n) fp64: values of the selected weights
  double loss = 0;                 // sum of cross entropies / predicted tokens
  double mean_loss = 0;            // mean of `losses`: the objective
  Plan plan;
  double seconds = 0, primal_seconds = 0, precision_seconds = 0;
  int64_t products = 0;
  int64_t peak_memory = 0;  // at the peak: anonymous bytes of the process, or bytes taken from a GPU
  std::optional<double>
      precision_error;  // of blocks[0]: |A - B|_F / |B|_F over `precision_columns` columns of one window in fp64
  int64_t precision_columns = 0;
  std::string precision_note;  // why it was not measured
};

/// Rows [begin, begin + rows) of one window's own matrix of the first curvature, (rows, n) fp64, as they are made: of
/// every chunk of rows window after window.
using OnRows = std::function<void(int64_t window, int64_t begin, const at::Tensor& rows)>;

/// Plan alone, nothing computed.
Plan plan_exact(const Model& model, const Selection& selection, const Windows& windows, const ExactOptions& options);

/// With the choices of a state that the run begins from.
ExactOptions resumed_options(ExactOptions options, const RunControl& control);

/// Throws what make_plan throws; std::runtime_error where a result is not finite (naming the window), Interrupted.
ExactResult compute_exact(const Model& model, const Selection& selection, const Windows& windows,
                          const ExactOptions& options, const RunControl& control = {}, const OnRows& on_rows = {});

/// P (H + g g^T), P = exp(loss): the Hessian of the true perplexity, from the fields above.
at::Tensor perplexity_hessian(const at::Tensor& hessian, const at::Tensor& gradient, double mean_loss);

/// Losses of windows alone: (b) fp64 means over counted tokens, and the counted tokens of each (b) int64.
struct WindowLosses {
  at::Tensor losses, counts;
  double loss() const;            // sum CE / counted tokens
  double standard_error() const;  // of the mean over windows; NaN for one window
};
/// Of options: device, batch, memory_limit, and primal, the precision of the pass.
Plan plan_losses(const Model& model, const Windows& windows, const EngineOptions& options);
WindowLosses compute_losses(const Model& model, const Windows& windows, const EngineOptions& options,
                            const OnProgress& on_progress = {});

}  // namespace hesper
