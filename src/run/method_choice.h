#pragma once
// Which method a tensor's diagonal should be done by, from what a pilot measured on one window. Products of a window
// are the unit of cost; V the variance of one sample and D the squared norm, of what the rule watches (entries without
// one). b windows, error X:   N = V / (b X^2 D) samples
//   hutchinson  V, one product a sample
//   split       V, `split_cost` products a sample
//   krylov      V(r) = V(r_0) (r_0 / r)^a, r as best_basis has it (krylov.h), r products beside the samples
//   exact       a cost of its own and no error
// With a rule the smallest cost wins; with m products the smallest V over samples, or exact where it costs at most m.
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "run/diag.h"

namespace hesper {

/// What one method's samples showed.
struct Sampled {
  double variance = 0;  // V
  double square = 0;    // D with the noise taken off; not always positive
  double known = 0;     // D of what a basis makes known: less than the whole, and free of noise
  int64_t samples = 0;  // behind the first two
};

struct MethodPilot {
  int64_t windows = 1;  // b of the run
  Sampled hutchinson;
  std::optional<Sampled> split;   // of the Hessian only
  std::optional<Sampled> krylov;  // left by a basis of `basis` vectors; where the products leave it room
  double split_cost = 1;
  int64_t basis = 0, block = 0;  // r_0; vectors of the start
  double decay = 0;              // a
  double exact = 0;              // cost; infinite where it does not fit
};

struct MethodChoice {
  std::optional<DiagMethod> method;  // empty: exact
  double cost = 0;                   // products of a window
  double sample_cost = 1;            // of them, one sample's
  double error = 0;                  // expected relative error, of the pilot's window alone; exact: 0
  std::string why;
  nlohmann::json record;  // the numbers
};

/// goal: the relative error of the rule, if there is one. products: a window, at most.
MethodChoice choose_method(const MethodPilot& pilot, int64_t products, std::optional<double> goal);

}  // namespace hesper
