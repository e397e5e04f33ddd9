#pragma once
// Error bars of a mean over b windows of noisy samples (or exact values) of each window. Used for the entries of a
// diagonal and, beside them, for sums of entries: a sum's bar needs the sum of each sample, not the entries' bars.
//   z_sk   sample k = 1..m of window s, E z_sk = d_s     d = (1/b) sum_s d_s     estimate = (1/b) sum_s mean_k z_sk
//   probe^2 = (1/b^2) sum_s Var_k(z_sk) / m                 error against the mean of these b windows
//   total^2 = spread between groups of windows              error against the text that the windows are drawn from
//   data^2  = total^2 - probe^2                             what is left of it with exact values; not positive:
//   unknown,
//                                                           "below probe noise"
// Windows are neighbours in a text, so the spread is taken between G contiguous groups of them: with w_g = b_g / b and
// y_g the mean of group g,
//   total^2 = sum_g w_g^2 (y_g - d)^2 / (1 - sum_g w_g^2)      (equal groups: Var_g(y_g) / G)
// A part e_s of every sample of a window may be known beforehand (deflation.h): z_sk = e_s + what `add` is given; it
// moves means and total, not probe.
// Samples come one by one (Welford 1962) or a number of them at once, as their own mean and squares (Chan, Golub,
// LeVeque 1979). Memory: (G + 2) n fp64 values, whatever b and m, and G n for known parts. Sums run in the order of the
// calls.
#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hessian/named_tensors.h"

namespace hesper {

/// Groups of the data bar: every window its own while there are few, at most this many.
inline constexpr int64_t most_window_groups = 10;
int64_t window_groups(int64_t windows);
/// Group of window s of `windows`: contiguous, sizes differ by at most one.
int64_t group_of(int64_t s, int64_t windows);

enum class Samples {
  random,  // E z_sk = d_s
  exact,   // z_s1 = d_s, one a window
};

/// Mean and variances of the mean, (n) fp64 each.
struct DiagonalBars {
  at::Tensor mean;
  at::Tensor probe;  // probe^2; zero for exact samples; undefined with one sample a window
  at::Tensor total;  // spread between groups; undefined with one window
  int64_t windows = 0, groups = 0;
  int64_t samples = 0;        // a window
  int64_t probe_degrees = 0;  // of freedom behind `probe`; total has groups - 1

  at::Tensor data() const;  // total - probe, unbiased, so not always positive; undefined where either is
  DiagonalBars slice(int64_t begin, int64_t end) const;
};

/// What K samples of a window add up to: mean (n) and sum_k (z_k - mean)^2 (n), fp64.
struct SampleMoments {
  int64_t count = 0;
  at::Tensor mean, squares;
};
/// Of z (K, n), on its device.
SampleMoments moments_of(const at::Tensor& z);

class DiagonalMoments {
 public:
  DiagonalMoments(int64_t n, int64_t windows, Samples samples = Samples::random);

  /// A visit is a run of samples of one window, in as many calls of `add` as one likes. A round visits every window
  /// once with the same number of samples; bars are for whole rounds.
  void begin_visit(int64_t window);
  /// z (K, n), any dtype and device: a GPU's are reduced there, and two numbers an entry come to the CPU.
  void add(const at::Tensor& z);
  void add(const SampleMoments& samples);

  /// Adds e (n) to the known part of every sample of a window.
  void shift(int64_t window, const at::Tensor& e);
  /// (1/b) sum_s e_s, (n) fp64.
  at::Tensor mean_shift() const;

  /// All that the calls above add up, by handles and under these names: the state of an unfinished run. known: also the
  /// known parts, of which there may be none yet.
  NamedTensors sums(const std::string& name, bool known = false);

  /// Throws std::logic_error when the last round is not whole.
  DiagonalBars bars() const;

  static int64_t bytes(int64_t n, int64_t windows) { return (window_groups(windows) + 2) * n * 8; }

 private:
  int64_t n_, windows_;
  Samples samples_;
  at::Tensor groups_;           // (G, n) sums of samples
  at::Tensor squares_;          // (n) sum over visits of sum_k (z_k - visit's mean)^2
  at::Tensor visit_;            // (n) the visit's mean so far
  at::Tensor shifts_;           // (G, n) sums of known parts; undefined: none
  at::Tensor counts_, visits_;  // (b) samples and visits of each window, fp64
  at::Tensor at_;               // (2) the visit's window and its samples so far, fp64
};

/// A bar, or why there is none.
struct Bar {
  enum class State {
    known,
    too_few,            // one sample a window (probe) or one window (data, total): no spread to see
    below_probe_noise,  // data^2 came out not positive
    not_resolved,       // relative bars: the noise is as large as the value
  };
  State state = State::too_few;
  double value = 0;  // where known

  bool known() const { return state == State::known; }
};
/// "12%" of a relative bar, "below probe noise", "not resolved", "unknown".
std::string say_relative(const Bar& bar);
std::string to_string(Bar::State state);

/// Errors of entries [begin, end) as a whole, relative: sqrt(sum of variances) over the debiased norm
/// sqrt(|d|^2 - sum of variances), which noise does not inflate: probe^2 is taken off for the probe bar, the larger of
/// probe^2 and total^2 for data and total. total = sqrt(probe^2 + max(0, data^2)); with one sample a window, where
/// probe^2 is unknown, it is the spread itself.
struct RelativeBars {
  double norm = 0;    // |d| as estimated
  Bar debiased_norm;  // sqrt(|d|^2 - probe^2)
  Bar probe, data, total;
};
RelativeBars relative_bars(const DiagonalBars& bars);
RelativeBars relative_bars(const DiagonalBars& bars, int64_t begin, int64_t end);

/// Standard errors of each entry, (n) fp64: NaN where the data bar is below probe noise.
struct EntryErrors {
  at::Tensor probe, data, total;  // undefined where unknown
};
EntryErrors entry_errors(const DiagonalBars& bars);

}  // namespace hesper
