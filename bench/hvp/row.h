#pragma once
// One row of the table: an engine, a pass and its precisions, run by hesper's own compute_exact in a process of its
// own.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "run/exact.h"

namespace hesper::bench {

/// The block whose columns are timed.
struct Problem {
  std::string model;  // folder
  std::string ids;    // .npy of token ids; empty: random ones
  std::string layer = "self_attn.q_proj";
  int64_t block = 0, tokens = 512, t = 16, b = 1;  // t: first entries of the layer's row 0; b windows of `tokens`
  int threads = 2;
  int64_t repeats = 3;
};

struct Row {
  std::string name;
  ExactOptions options;
};

/// The rows that this program computes, the fp64 truth and the rival first.
std::vector<Row> all_rows();
inline constexpr const char* kTruth = "two-pass K=8 fp64";
inline constexpr const char* kAutograd = "autograd fp32";
inline constexpr const char* kReference = "reference loop fp32";

/// After a warm-up on one column runs the row `repeats` times; writes H (t, t) fp64 to `matrix` (.npy). The lists hold
/// one number a run:
/// {seconds, primal_seconds, cpu_seconds, page_faults: [..], primal_flops, tangent_flops, plan_bytes}
nlohmann::json measure(const Row& row, const Problem& problem, const std::filesystem::path& matrix);

}  // namespace hesper::bench
