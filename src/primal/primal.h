#pragma once
// One pass at theta over a batch of windows: losses, gradient at the selected weights, and the tape that every tangent
// pass reads. Ops below the first selected weight run forward only and leave nothing.
#include <functional>
#include <optional>

#include "model/program.h"
#include "ops/directions.h"
#include "ops/parameters.h"
#include "ops/selection.h"

namespace hesper {

/// ids (B, T) int64; labels (B, T) int64, labels[s, t] the id predicted for position t, -100 where no loss counts
/// (position 0 never counts). Throws std::invalid_argument naming a window in which nothing counts.
Tokens make_tokens(const Tensor& ids, const Tensor& labels, at::Device device);

/// Const after run_primal.
struct Tape {
  Tokens tokens;          // B windows of T tokens
  std::vector<Kept> ops;  // per op, working precision; empty below the first selected weight
  Kept head;
  Tensor losses;             // (B) fp64: each window's mean over its own counted tokens
  Tensor gradient;           // (B, n) fp64: of each window's own loss; run along directions: (B, K) derivatives
  std::vector<char> active;  // per value: depends on a selected weight
  int64_t bytes() const;     // tensors held, in bytes
};

/// precision: of values and adjoints while the pass runs; the tape is stored in parameters.working().
/// spilled: the tape of the ops lies in pinned memory of the host, and each op's is on the GPU only while it is used.
/// `along`: whole-tensor directions to take the gradient's products with, instead of its entries.
Tape run_primal(const Program& program, const Parameters& parameters, const Selection& selection, const Tokens& tokens,
                at::ScalarType precision, const Directions* along = nullptr, bool spilled = false);

/// The same tape for passes that select fewer of its weights (shares its tensors): they end at their own lowest layer.
Tape narrowed(const Tape& tape, const Program& program, const Selection& fewer);

/// (B) fp64 losses alone: no tape, no adjoint.
Tensor run_forward(const Program& program, const Parameters& parameters, const Tokens& tokens,
                   at::ScalarType precision);

/// (B) fp64 losses of variants of a model that each change a few parameters. Below the first op that reads a changed
/// one all values are the base's own: the base runs once, and every variant branches off where it begins to differ. The
/// same operations on the same numbers as run_forward of the variant: the same bits. changed[k]: the parameters that
/// variant k changes; variant(k): all of its parameters; take(k, losses): in the order in which the variants begin, of
/// those that wanted(k), asked in that order, says so.
void run_variants(const Program& program, const Parameters& base, const std::vector<std::vector<int>>& changed,
                  const Tokens& tokens, at::ScalarType precision, const std::function<Parameters(int64_t)>& variant,
                  const std::function<void(int64_t, const Tensor&)>& take,
                  const std::function<bool(int64_t)>& wanted = {});

/// Forward alone: losses, and what the linear layers of the selected parameters read.
struct LayerInputs {
  Tensor losses;   // (B) fp64
  Tensors inputs;  // (B*T, in) for each part of the selection; one tensor where layers read the same value
};
/// Throws what linear_layers_of throws.
LayerInputs run_layer_inputs(const Program& program, const Parameters& parameters, const Selection& selection,
                             const Tokens& tokens, at::ScalarType precision);

/// How near the routing of a mixture of experts is to a tie.
struct RouterMargin {
  double smallest = 0;  // of the chosen logit less the next, over all tokens and mixtures
  int64_t tokens = 0;   // routed, all mixtures together
};
/// std::nullopt for a model without a mixture. Of several slots every one counts.
std::optional<RouterMargin> router_margin(const Program& program, const Parameters& parameters, const Tokens& tokens,
                                          at::ScalarType precision);

/// The op of each part of the selection. Throws std::invalid_argument naming a parameter that is not the matrix of a
/// linear layer.
std::vector<const Op*> linear_layers_of(const Program& program, const Selection& selection);

/// Values that depend on a selected weight.
std::vector<char> active_values(const Program& program, const Selection& selection);
bool is_active(const Op& op, const std::vector<char>& active, const Selection& selection);
unsigned active_inputs(const Op& op, const std::vector<char>& active);

}  // namespace hesper
