#pragma once
// Causal attention. Per head, width D, scale c: S = c Q K^T (j <= i), L = logsumexp of a row, P = exp(S - L), O = P V.
//   forward_tangent: S_dot = c (Q_dot K^T + Q K_dot^T), r = rowsum(P * S_dot), P_dot = P * (S_dot - r),
//                    O_dot = P_dot V + P V_dot
//   adjoint:         dP = O_bar V^T, Dl = rowsum(O_bar * O), dS = P * (dP - Dl),
//                    Q_bar = c dS K, K_bar = c dS^T Q, V_bar = P^T O_bar
//   adjoint_tangent: Dl_dot = rowsum(O_bar_dot * O + O_bar * O_dot), dP_dot = O_bar_dot V^T + O_bar V_dot^T,
//                    dS_dot = P_dot * (dP - Dl) + P * (dP_dot - Dl_dot),
//                    Q_bar_dot = c (dS_dot K + dS K_dot), K_bar_dot = c (dS_dot^T Q + dS^T Q_dot),
//                    V_bar_dot = P_dot^T O_bar + P^T O_bar_dot
//   second order, w = dS: sum w (S_dot_i - r_i)(S_dot_j - r_j) + c Q_dot_i.(w K_dot_j) + P_dot_i : (O_bar V_dot_j^T)
//                    + the last two with i and j exchanged. With e_j = rowsum(w * (S_dot_j - r_j)) the first sum is
//                    S_dot_i : (w * (S_dot_j - r_j) - P e_j), so all of it is Q_dot_i, K_dot_i, V_dot_i against
//                    Q' = c ((w * (S_dot - r) - P e) K + 2 w K_dot), K' = c (w * (S_dot - r) - P e)^T Q, V' = 2 P_dot^T
//                    O_bar
// Grouped heads: query head h reads key/value head h / (H/G); adjoints of K and V are summed over the heads of a group.
// L, r, Dl, Dl_dot are O(T); every T x T matrix lives a block of rows at a time.
// A row may see fewer keys than its past: the last `window` of them (i - j < window), or those of its chunk of the
// sequence (i/chunk = j/chunk). Scores may be capped, S = a tanh(U/a), U = c Q K^T (Gemma 2). With th = tanh(U/a),
// S' = 1 - th^2, S'' = -2 th S'/a, what stands for S above becomes what stands for U:
//   U_dot = c (Q_dot K^T + Q K_dot^T), S_dot = S' U_dot; dU = S' dS, dU_dot = S' dS_dot + S'' U_dot dS;
//   Q_bar, K_bar and their tangents from dU, dU_dot; second order: + sum dS S'' U_dot_i U_dot_j, and w = dU beside
//   K_dot
#include "ops/op.h"

namespace hesper {

struct AttentionShape {
  int64_t heads = 1;     // H
  int64_t kv_heads = 1;  // G
  int64_t width = 1;     // D
  double scale = 1;      // c
  int64_t window = 0;    // keys that a row sees, itself among them; 0: all
  int64_t chunk = 0;     // tokens of a chunk; 0: the sequence is one
  double softcap = 0;    // a; 0: none

  /// True where no row of `tokens` tokens differs from plain causal attention, which alone the fused kernels know.
  bool plain(int64_t tokens) const {
    return softcap == 0 && (window == 0 || window >= tokens) && (chunk == 0 || chunk >= tokens);
  }
};

class Attention : public Op {
 public:
  Attention(int q, int k, int v, AttentionShape shape) : Op({q, k, v}, {}), shape_(shape) {}
  Tensor forward(const Primal&, const Tensors& x, Kept&) const override;
  Tensor plain(const Primal&, const Tensors& x) const override;
  Tensors adjoint(const Primal&, const Tensor& y_bar, unsigned wanted, Kept&, Readout&) const override;
  Tensor forward_tangent(const Tangent&, const Tensors& x_dot, Kept&) const override;
  Tensors adjoint_tangent(const Tangent&, const Tensor& y_bar_dot, const Kept&, Readout&) const override;
  void second_order(const Tangent&, const Kept&, SecondOrder&) const override;
  int64_t scratch_bytes(int64_t tokens, int64_t directions, int64_t element_size, int threads) const override;
  int64_t primal_scratch_bytes(int64_t tokens, int64_t sequences, int64_t element_size) const override;
  int64_t device_scratch_bytes(int64_t tokens, int64_t leading, int64_t element_size, bool fused) const override;
  bool token_local() const override { return false; }
  bool composed(int64_t tokens) const override;
  OpCost cost(const OpShapes& s) const override;
  std::string name() const override { return "attention"; }

 private:
  /// True for the maps of attention_cpu.h.
  bool on_cpu(const Tensor& x, int64_t tokens) const;
  bool fused(const Tangent& t) const;
  AttentionShape shape_;
};

}  // namespace hesper
