#pragma once
// Derivatives at the selected weights by differences of the loss l and of the hand-written gradient g, in fp64. With
// steps h along directions v (|v| = 1) and D the derivative along v:
//                          formula                                        truncation        rounding
//   slope      g.v     forward  (l(h) - l(0))/h                           h/2  |D^2 l|      2 e_l/h
//                      central  (l(h) - l(-h))/2h                         h^2/6 |D^3 l|       e_l/h
//   curvature  v.Hv    forward  (l(2h) - 2 l(h) + l(0))/h^2               h    |D^3 l|      4 e_l/h^2
//                      central  (l(h) - 2 l(0) + l(-h))/h^2               h^2/12 |D^4 l|    4 e_l/h^2
//   mixed      u.Hv    central  (l(u+v) - l(u-v) - l(v-u) + l(-u-v))/4h^2  h^2/6 (...)        e_l/h^2
//   column     Hv      forward  (g(h) - g(0))/h                           h/2  |D^2 g|      2 e_g/h
//                      central  (g(h) - g(-h))/2h                         h^2/6 |D^3 g|       e_g/h
// e_l and e_g, the rounding noise of one evaluation, are measured: second differences over steps of 1e-10 (the largest
// of three), where nothing but noise is left. Truncation is estimated from neighbouring steps (Richardson). A ReLU
// network is smooth only between kinks: where a ReLU input changes sign inside the step, differences mix two different
// Hessians and no formula above holds. Such steps are found by comparing the signs of all ReLU inputs. So is a mixture
// of experts: the experts of all tokens are compared.
#include <optional>

#include "primal/primal.h"

namespace hesper {

struct Estimate {
  Tensor value;           // () or (n) fp64
  double truncation = 0;  // absolute, l2 norm
  double rounding = 0;    // likewise
};

struct Differences {
  double step = 0;    // h
  int64_t kinks = 0;  // ReLU inputs that change sign, tokens that change experts: to be trusted only where this is 0
  Estimate slope_forward, slope_central;          // ()
  Estimate curvature_forward, curvature_central;  // ()
  Estimate column_forward, column_central;        // (n)
};

struct MixedDifference {
  double step = 0;
  int64_t kinks = 0;
  Estimate value;  // ()
};

/// 1e-3 .. 1e-7; a ReLU model needs smaller ones, down to 1e-9.
std::vector<double> default_steps(bool relu);

class FiniteDifferences {
 public:
  /// Of the mean of the windows' losses. parameters: working precision fp64. relu: the model has kinks.
  FiniteDifferences(const Program& program, const Parameters& parameters, const Selection& selection,
                    const Tokens& tokens, bool relu);

  double loss() const { return origin_.loss; }
  const Tensor& gradient() const { return origin_.gradient; }  // (n)
  double loss_noise() const { return loss_noise_; }            // e_l
  double gradient_noise() const { return gradient_noise_; }    // e_g, l2 norm

  /// Differences along v (n), |v| = 1, one entry a step, steps in descending order.
  /// Throws std::invalid_argument unless steps are positive and descending and v has n entries.
  std::vector<Differences> along(const Tensor& v, const std::vector<double>& steps) const;
  /// u.Hv from four losses a step.
  std::vector<MixedDifference> mixed(const Tensor& u, const Tensor& v, const std::vector<double>& steps) const;

  /// The parameters at theta + d, d (n) on the selection.
  Parameters moved(const Tensor& d) const;
  /// The parameters at theta + h u, u of length 1 on the selection, and every other vector (norms, biases) times 1 + h:
  /// all that is rounded below and above the selection is rounded anew.
  Parameters shaken(double h) const;
  /// ReLU inputs whose sign, and tokens whose expert, at theta + d differs from that at theta.
  int64_t kinks(const Tensor& d) const;

 private:
  struct Point {
    double loss = 0;
    Tensor gradient;  // (n)
  };
  Point evaluate(const Parameters& parameters) const;
  double loss_at(const Tensor& d) const;
  /// Signs of all ReLU inputs, experts of all tokens; nothing of a smooth model.
  Tensors pieces(const Parameters& parameters) const;
  void check(const Tensor& v, const std::vector<double>& steps) const;

  const Program& program_;
  const Parameters& parameters_;
  const Selection& selection_;
  const Tokens& tokens_;
  bool relu_;
  Tensors pieces_;  // per activation op: bool (rows, F), at theta
  Point origin_;
  double loss_noise_ = 0, gradient_noise_ = 0;
};

}  // namespace hesper
