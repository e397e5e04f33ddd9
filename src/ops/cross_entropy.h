#pragma once
// The language-model head: logits z = x U^T over V words, cross entropy per window. p = softmax(z), w_t the token's
// weight 1/(counted tokens of its window):
//   loss      = sum_t w (logsumexp(z) - z[target])                z_bar     = w (p - onehot(target))
//   z_dot     = x_dot U^T + x U_dot^T                             z_bar_dot = w p (z_dot - p.z_dot)   [= Lambda z_dot]
//   x_bar     = z_bar U                                           x_bar_dot = z_bar_dot U + z_bar U_dot
//   U_bar     = z_bar^T x                                         U_bar_dot = z_bar_dot^T x + z_bar^T x_dot
//   second order: sum w p (z_dot_i - p.z_dot_i)(z_dot_j - p.z_dot_j)  (Gauss-Newton)  + <z_bar, U_dot_i x_dot_j +
//   U_dot_j x_dot_i>
// Logits may be capped (Gemma 2): z = a tanh(y/a), y = x U^T. With th = tanh(y/a), z' = 1 - th^2, z'' = -2 th z'/a:
//   y_dot = x_dot U^T + x U_dot^T, z_dot = z' y_dot;  y_bar = z' z_bar,  y_bar_dot = z' z_bar_dot + z'' y_dot z_bar
//   in the place of z_bar and z_bar_dot above, second order: + sum z_bar z'' y_dot_i y_dot_j (no Gauss-Newton part)
// Tokens that carry no loss (w = 0: the last one, those before --loss-from, labels of -100) skip the head in every
// pass. Logits live for a run of tokens and a run of words only. p.z_dot costs no pass over the words: it is x_dot .
// (U^T p) (capped: U^T (z' p)), which is left on the tape by the primal pass. Sums over words are fp64 in the primal
// pass whatever its precision.
#include "ops/op.h"

namespace hesper {

struct AdjointStart;

/// Which second derivative: H = G + R, G the Gauss-Newton matrix (= Fisher of the cross entropy), R the residual.
enum class Curvature { hessian, gauss_newton, residual };

/// Elements of logits that the primal pass has at a time (rows tokens of a sequence, V words); it holds three such
/// tiles in fp64.
int64_t primal_logits_tile(int64_t rows, int64_t words, at::Device device = at::kCPU);
/// The same of a tangent pass, over all directions of one thread's cut; beside it, p and w p of one direction.
int64_t tangent_logits_tile(int64_t rows, int64_t words, bool whole, at::Device device = at::kCPU);

class CrossEntropyHead {
 public:
  /// softcap: a, 0 for none.
  CrossEntropyHead(int x, int table, double softcap = 0) : input(x), table(table), softcap(softcap) {}

  struct Result {
    Tensor losses;  // (B) fp64
    Tensor x_bar;   // (rows, C) of the sum over windows; undefined unless p.keep
  };
  Result forward_adjoint(const Primal& p, const Tensor& x, Kept& kept, Readout& gradient) const;
  /// (B) losses, differentiable.
  Tensor plain(const Primal& p, const Tensor& x) const;
  /// z for some rows: (rows, V).
  Tensor logits(const Parameters& parameters, const Tensor& x) const;

  /// x_bar_dot (K, rows, C), undefined where no row carries loss; U_bar_dot into `out`.
  Tensor adjoint_tangent(const Tangent& t, const Tensor& x_dot, Curvature kind, Readout& out) const;
  void second_order(const Tangent& t, const Tensor& x_dot, SecondOrder& form) const;
  /// x_bar = y_bar U (K, rows, C) of random adjoints of the logits (adjoint_start.h); U_bar = y_bar^T x into `out`. All
  /// are z_bar = sqrt(w) (a - c p) with a a multiple of sqrt(p) * e or of a one-hot, so one pass over the words at
  /// most: x_bar = sqrt(w) (z' a U - c U^T (z' p)), the latter from the tape.
  Tensor adjoint(const Tangent& t, const AdjointStart& start, Readout& out) const;

  const int input;  // value number
  const int table;  // parameter number of U (V, C): lm_head, or the embedding when tied
  const double softcap;

 private:
  // The maps over tokens that all carry loss.
  Tensor adjoint_tangent_of_counted(const Tangent& t, const Tensor& x_dot, Curvature kind, Readout& out) const;
  void second_order_of_counted(const Tangent& t, const Tensor& x_dot, SecondOrder& form) const;
  /// y_bar of all words: (rows, V).
  Tensor adjoint_of_logits(const Tangent& t) const;
  /// sqrt(p) of words with the matrix `u`: (rows, n); 0 where no loss counts.
  Tensor root_probabilities(const Tangent& t, const Tensor& u) const;
  Tensor draw_labels(const Tangent& t, const AdjointStart& start) const;
  /// z_bar of all words: (K, rows, V).
  Tensor start_of_logits(const Tangent& t, const AdjointStart& start) const;
  /// The Gauss-Newton part of adjoint_tangent on a device, the head's own weights at rest.
  void add_fused(const Tangent& t, const Tensor& x_dot, Tensor& x_bar_dot) const;
  bool serves_fused(const Tangent& t, const Tensor& x_dot) const;

  /// z, z' and z'' of y; the last two undefined where nothing is capped.
  struct Logits {
    Tensor z, first, second;
  };
  Logits logits_of(const Tensor& y) const;
  /// z' U of one word a row, words ((K,) rows): ((K,) rows, C).
  Tensor rows_of_words(const Tensor& words, const Tensor& x, const Tensor& U) const;
  /// A run of words [begin, begin + n), their matrix and what the tokens make of them: (rows, n) each.
  struct Words {
    int64_t begin;
    Tensor u, p, first, second;
  };
  /// Calls f(words, z_dot - p.z_dot, y_dot) for runs of words; `whole`: one run of all V. y_dot is defined where logits
  /// are capped.
  template <class F>
  void for_words(const Tangent& t, const Tensor& x_dot, bool whole, F f) const;
  /// z_bar of a run of words: (rows, n).
  Tensor adjoint_of(const Tangent& t, const Words& words) const;
};

}  // namespace hesper
