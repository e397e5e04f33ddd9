#pragma once
// K directions over one window of a tape.
//   product:      forward_tangent up to the head, adjoint_tangent back to the lowest selected weight -> H V, G V or R V
//   adjoint:      adjoints of K random starts at the logits back to the lowest selected weight     -> w_bar
//   second_order: forward_tangent alone, adding each op's <y_bar, f''[i, j]>                        -> V^T G V, V^T R V
// Token-local segments run a few tokens at a time with all K directions, so that a cut of rows stays in cache, each cut
// on one thread; what a cut adds to the sums is added in the order of the cuts, whatever thread made it. Between
// segments only the residual stream and the attention's inputs exist for all tokens.
#include "ops/adjoint_start.h"
#include "ops/directions.h"
#include "ops/second_order.h"
#include "primal/primal.h"
#include "tangent/factors.h"

namespace hesper {

/// Rows (directions x tokens) of a cut of a token-local segment: enough for the matrix product, few enough for the
/// cache.
int64_t default_cut_rows(at::Device device);
/// The same for adjoints of K starts at whole layers: enough tokens that their product with a layer's inputs is worth a
/// pass over the layer's sums.
int64_t adjoint_cut_rows(int64_t directions);
/// Tokens of a cut of so many rows. On a GPU a multiple of 128, the rows of a tile of the head's product, however many
/// the directions.
int64_t cut_tokens(int64_t rows, int64_t directions, int64_t tokens, at::Device device);

class TangentPass {
 public:
  TangentPass(const Program& program, const Parameters& parameters, const Selection& selection, const Tape& tape,
              int64_t cut_rows = 0);

  /// H V, G V or R V of window s's own loss at the selected weights: (K, n) fp64; for whole-tensor directions V^T H V,
  /// (K, K), symmetric up to rounding. `recompute`: of each block only the residual stream and the attention's output
  /// stay until the way back, which runs the token-local ops of a block once more before it goes through it. The same
  /// operations on the same numbers: the same bits.
  Tensor product(const Directions& v, int64_t s, Curvature kind, bool recompute = false) const;

  /// w_bar of window s for the K adjoints of its logits that `start` draws: (K, n) fp64.
  Tensor adjoint(const AdjointStart& start, int64_t s) const;

  struct Forms {
    Tensor gauss_newton, residual;  // (K, K) fp64, symmetric
  };
  /// V^T G V and V^T R V of window s's own loss.
  Forms second_order(const Directions& v, int64_t s) const;

 private:
  struct Run;
  struct Cut;
  void forward(Run& run, const Segment& segment) const;
  void forward_cut(Run& run, const Segment& segment, const Cut& cut) const;
  void recompute(Run& run, const Segment& attention) const;
  void backward(Run& run) const;
  void backward(Run& run, const Segment& segment) const;
  void backward_cut(Run& run, const Segment& segment, const Cut& cut) const;
  Tensor border_for(Run& run, const Segment& segment, const Tensor& part) const;
  template <class F>
  void for_cuts(const Segment& segment, int64_t alive, F f) const;
  Kept tape_of(const Kept& kept, const Run& run, int64_t begin, int64_t length) const;

  const Program& program_;
  const Parameters& parameters_;
  const Selection& selection_;
  const Tape& tape_;
  int64_t cut_rows_;
  std::vector<Factors> factors_;  // per op
};

}  // namespace hesper
