#pragma once
// Random adjoints z_bar of one window's logits, whose adjoint at the weights has a Fisher diagonal as its mean square.
// With p = softmax(z) and w the token's weight (op.h):
//   token_signs  z_bar = sqrt(w) e (p - onehot(target)), e = +-1 a token:     E[w_bar^2] = sum_t w (dl_t/dw)^2
//   factor       z_bar = sqrt(w) (sqrt(p) * e - p (sqrt(p).e)), e a token and word:  E[z_bar z_bar^T] = Lambda,
//                                                                              E[w_bar^2] = diag G
//   labels       z_bar = sqrt(w) (p - onehot(y)), y drawn from p:             E[w_bar^2] = diag G
// Random numbers are those of (seed, window, probe, token, word): the same however tokens, words and probes are split.
#include "ops/op.h"
#include "ops/random.h"

namespace hesper {

/// Probes [first_probe, first_probe + count) of one window.
struct AdjointStart {
  enum class Kind { token_signs, factor, labels };
  Kind kind = Kind::factor;
  uint64_t seed = 0;
  int64_t window = 0;  // its number among all windows of the text
  int64_t first_probe = 0;
  int64_t count = 1;  // K

  /// e of each token: (K, rows, 1).
  Tensor signs_of_tokens(const Tokens& tokens, at::TensorOptions options) const;
  /// e of each token and the words [begin, begin + words) of V, begin a multiple of 128: (K, rows, words).
  Tensor signs_of_words(const Tokens& tokens, int64_t vocab, int64_t begin, int64_t words,
                        at::TensorOptions options) const;
  /// Uniform in [0, 1), what labels are drawn by: (rows, K) fp64.
  Tensor uniforms_of_tokens(const Tokens& tokens, at::Device device) const;

 private:
  ProbeKey key(uint32_t stream, int64_t probe) const;
};

}  // namespace hesper
