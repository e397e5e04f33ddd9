#include "machine.h"

#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>
#include <thread>

#include "ops/product.h"

namespace hesper::bench {
namespace {

std::string cpu_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

template <class F>
double best_rate(double flops, const F& multiply) {
  double best = 1e9;
  for (int i = 0; i < 12; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    multiply();
    const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (i > 1) best = std::min(best, s);
  }
  return 1e-9 * flops / best;
}

}  // namespace

nlohmann::json machine() {
  utsname system{};
  uname(&system);
  struct sysinfo memory {};
  sysinfo(&memory);
  return {{"name", system.nodename},
          {"cpu", cpu_name()},
          {"cores", std::thread::hardware_concurrency()},
          {"memory_gib", static_cast<double>(memory.totalram) * memory.mem_unit / (1 << 30)},
          {"kernel", std::string(system.sysname) + " " + system.release}};
}

nlohmann::json product_rates(int threads) {
  at::set_num_threads(threads);
  constexpr int64_t kRows = 1024, kDepth = 768, kColumns = 2048;
  nlohmann::json rates;
  for (const auto& [name, dtype] : {std::pair{"fp32", at::kFloat}, std::pair{"fp64", at::kDouble}}) {
    const at::Tensor a = at::randn({kRows, kDepth}, dtype), b = at::randn({kDepth, kColumns}, dtype);
    constexpr double kFlops = 2.0 * kRows * kDepth * kColumns;
    rates[name] = best_rate(kFlops, [&] { product(a, b); });
    rates[std::string("mkl_") + name] = best_rate(kFlops, [&] { at::mm(a, b); });
  }
  return rates;
}

}  // namespace hesper::bench
