#pragma once
// What a timing was taken on.
#include <nlohmann/json.hpp>

namespace hesper::bench {

/// {name, cpu, cores, memory_gib, kernel}
nlohmann::json machine();

/// GFLOP/s of large matrix products on `threads` threads: {"fp32", "fp64"} of hesper's products, {"mkl_fp32",
/// "mkl_fp64"} of LibTorch's. The arithmetic bound is taken at hesper's, the faster ones.
nlohmann::json product_rates(int threads);

}  // namespace hesper::bench
