#pragma once
// The first stage of --method krylov: the basis of a group's deflation (deflation.h), grown by block Lanczos on the
// mean of the windows for as long as a product spent on it takes more variance away than one more probe would.
//   V(r)   variance of one probe of P H_s P summed over entries and averaged over windows, from a few pilot probes
//   a      = -d log V / d log r, between the last two sizes
// m products a window in all: the error V(r) / (m - r) is least at r = m a / (1 + a). Stopping by an error that asks
// for N(r) probes: r + N(r) is least at r = (a N(r_0) r_0^a)^(1 / (1 + a)). The basis grows to there, at most doubling
// before it looks again.
#include "run/diag_estimate.h"

namespace hesper {

/// Products a window below which there is no room for the stages.
inline constexpr int64_t least_krylov_products = 32;

/// Vectors that join together, of a run of `products` a window. Larger blocks read the windows fewer times, smaller
/// ones reach a higher power of H by the same number of products.
int64_t krylov_block(int64_t products);

/// The largest basis that a run of `products` a window may want of n weights.
int64_t most_basis(int64_t products, int64_t n);

/// What a run by a basis hands to both of its stages.
struct KrylovState {
  nlohmann::json plan;   // plan_choices
  NamedTensors tensors;  // all that is added up beside the basis
  at::Tensor losses;     // (b) among them
  at::Tensor first;      // (rows, n) fp64 among them: the first of the start's samples in window 0, v * (H v)
};

/// Gives `e` its deflation with at most `room` vectors, and its moments the part known from it; goes on in the stage
/// that the ledger was resumed in.
void grow_basis(const DiagJob& job, Estimate& e, PrimalBatches& primal, const Parameters& parameters,
                const RunForm& form, int64_t room, Ledger& ledger, const KrylovState& state);

/// What the stage after it needs to find the basis again, beside the rows of the deflation.
nlohmann::json basis_note(const Estimate& e);

/// Exponent a of V(r) from two sizes, not negative; and the best size as above with `left` products to go, of which the
/// rule asks for `needed` probes (infinite without a rule).
double decay(int64_t r0, double v0, int64_t r1, double v1);
int64_t best_basis(double a, int64_t r, double left, double needed);

}  // namespace hesper
