#pragma once
// The estimators that are compared. A new one is a line in methods().
#include <optional>
#include <string>
#include <vector>

#include "stand.h"

namespace hesper::bench {

struct Method {
  enum class Kind {
    samples,  // a mean of independent samples: error^2 = bias^2 + variance / m
    runs,     // whole runs of hesper diag, whatever law they follow
    exact,    // rows of forward tangents: no error
  };
  std::string name;
  Kind kind = Kind::samples;
  DiagMethod method = DiagMethod::hutchinson;
  bool balanced = false;   // the reference's signs, as many +1 as -1 in each run of 32
  int64_t directions = 0;  // K at once; 0: what the plan of a run takes
};
std::vector<Method> methods();
inline constexpr const char* kReference = "reference";

/// K of this method on this layer.
int64_t directions_of(const Stand& stand, const Method& method);

/// Samples first, .., first + count - 1: z (count, n) fp64, over the whole layer.
at::Tensor draw(const Stand& stand, const Method& method, uint64_t seed, int64_t first, int64_t count);

/// Arithmetic of one sample in two-pass products.
double products_of_a_sample(const Stand& stand, const Method& method);

/// |E d - diag H| / |diag H| of balanced signs, E v_i v_j = -1/31 in a run of 32: bias_i = -(sum of the run's h_ij, j
/// != i) / 31. From the exact Hessians of some rows, made of forward tangents along an orthonormal basis of the layer's
/// inputs.
struct RowCheck {
  int64_t rows = 0;
  double bias = 0;         // relative, over these rows
  double seconds = 0;      // a row, median
  int64_t directions = 0;  // tangents a row
  double mismatch = 0;     // |diagonal of these rows - truth| / |truth|
};
RowCheck check_rows(const Stand& stand, int64_t most_rows);

}  // namespace hesper::bench
