#pragma once
// The proxies of rank.h, of one window on a tape.
//   diagonal, gauss_newton   E (d*v)^T M (d*v) = sum_i M_ii d_i^2 for signs v_i = +-1, one for each weight and window:
//                            the K directions d_k * v through the Gram pass, one sample of variance
//                            2 sum_{i != j} (d_i M_ij d_j / 2)^2 and nothing from the couplings between directions
//   fisher, output_error     exact, from what the tape has of a linear layer: x (T, in) and y_bar (T, out),
//                            g = y_bar^T x for W, sum_t y_bar_t for b. NaN for a direction that moves anything but
//                            linear layers whose matrix moves (norms, embeddings, the head).
#include "hessian/named_directions.h"
#include "primal/primal.h"

namespace hesper {

struct WindowProxies {
  Tensor diagonal, gauss_newton, fisher, output_error;  // (K) fp64
};

/// Of the tape's sequence `place`, which is window `window` of all available (the signs are its own).
WindowProxies window_proxies(const Program& program, const Parameters& parameters, const Selection& selection,
                             const Tape& tape, int64_t place, int64_t window, const NamedDirections& named);

}  // namespace hesper
