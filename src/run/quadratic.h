#pragma once
// What a change of the weights does to the loss, to second order: along directions d_1 .. d_K, for the mean loss l over
// b windows,
//   l(w + sum_i x_i d_i) - l(w) = sum_i x_i g.d_i + sum_ij x_i x_j q_ij + third order,   q_ij = d_i^T H d_j / 2,
// with H = G + R. The q_ij are one Gram pass a window (V^T H V with V = d_1 .. d_K): exact for the windows, no probes.
// Every number has the standard error of its mean over the windows (b >= 2).
#include "hessian/named_directions.h"
#include "run/exact.h"
#include "run/rank.h"

namespace hesper {

struct QuadraticOptions : EngineOptions {
  QuadraticOptions() { primal = at::kDouble, measure_precision = false; }
  std::vector<double> steps = {0.125, 0.25, 0.5, 1};  // e of the losses measured at w + e (d_1 + .. + d_K)
  bool actual_each = false;                           // also the loss at w + d_k for each k alone; in `precision`
  bool rank = false;                                  // and what to rank the directions by; needs actual_each
};

/// Mean over windows and its standard error (undefined for one window), of one shape.
struct WithError {
  Tensor mean, standard_error;  // fp64
};

struct LineStep {
  double e = 0;
  double predicted = 0, predicted_error = 0;  // e g.d + e^2 d'Hd/2, d = d_1 + .. + d_K
  double actual = 0, actual_error = 0;        // l(w + e d) - l(w)
  double difference_error = 0;                // standard error of actual - predicted
};

struct QuadraticResult {
  Tensor losses;                         // (b) fp64
  double mean_loss = 0;                  // the objective
  double loss = 0;                       // sum of cross entropies / predicted tokens
  WithError gradient;                    // (K) g.d_k
  WithError gauss_newton;                // (K, K) d_i^T G d_j / 2
  WithError residual;                    // (K, K) d_i^T R d_j / 2
  WithError hessian;                     // (K, K) their sum
  WithError predicted_each;              // (K) g.d_k + d_k^T H d_k / 2
  std::optional<WithError> actual_each;  // (K) l(w + d_k) - l(w)
  std::vector<LineStep> line;            // all directions together
  WithError line_first, line_second;     // scalars: g.d and d^T H d / 2 of all directions together
  std::vector<RankColumn> ranking;       // rank.h, in its order; empty unless asked for
  double seconds = 0, primal_seconds = 0, actual_seconds = 0, proxy_seconds = 0;
  int64_t peak_memory = 0;  // at the peak: anonymous bytes, or bytes taken from a GPU
};

/// Memory and cost of the forms, and the memory of the actual losses after them (Plan::check); nothing is computed.
/// Throws as make_plan does, std::invalid_argument for a ranking of one direction or without actual_each.
Plan plan_quadratic(const Model& model, const NamedDirections& directions, const Windows& windows,
                    const QuadraticOptions& options);

/// Throws std::runtime_error where a number is not finite (naming the window), an actual loss included; Interrupted.
QuadraticResult compute_quadratic(const Model& model, const NamedDirections& directions, const Windows& windows,
                                  const QuadraticOptions& options, const RunControl& control = {});

}  // namespace hesper
