// The fused tangent maps between products on a GPU: how fast they move their bytes, as a share of the rate at which
// the same card copies a large tensor. A map's bytes are its tangents read and written once; what the directions share
// is read from the L2 cache and not counted.
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>

#include "ops/fused.h"
#include "run/device_memory.h"
#include "timed_op.h"

namespace hesper {
namespace {

struct Shape {
  const char* name;
  int64_t directions, rows, width, hidden, heads;
};
// K = 16 directions of 2048 tokens.
constexpr Shape shapes[] = {{"opt-125m", 16, 2048, 768, 3072, 12}, {"llama-3.2-1b", 16, 2048, 2048, 8192, 32}};

double median_seconds(at::Device device, const std::function<void()>& f) {
  std::vector<double> seconds;
  for (int i = 0; i < 12; ++i) {
    synchronize(device);
    const double begin = seconds_now();
    for (int j = 0; j < 8; ++j) f();
    synchronize(device);
    if (i > 1) seconds.push_back((seconds_now() - begin) / 8);
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

void run(const std::string& json_file) {
  const at::NoGradGuard no_grad;
  const at::Device device(at::kCUDA, 0);
  at::manual_seed(0);
  const auto random = [&](at::IntArrayRef shape) {
    return at::randn(shape, at::TensorOptions(at::kFloat).device(device));
  };
  nlohmann::json out = {{"device", device_name(device)}};
  {
    const Tensor from = random({1 << 28}), to = at::empty_like(from);
    const double bytes = 2.0 * static_cast<double>(from.nbytes());
    out["copy_gb_a_second"] = bytes / median_seconds(device, [&] { to.copy_(from); }) / 1e9;
  }
  const auto copy = out["copy_gb_a_second"].get<double>();
  std::cout << fmt::format("{}, copies {:.0f} GB/s\n{:14} {:34} {:>9} {:>8} {:>6}\n", device_name(device), copy,
                           "shape", "map", "GB/s", "us", "share");
  for (const Shape& s : shapes) {
    const double rows = static_cast<double>(s.directions * s.rows);
    const auto report = [&](const std::string& name, double bytes, const std::function<void()>& f) {
      const double seconds = median_seconds(device, f), rate = bytes / seconds / 1e9;
      std::cout << fmt::format("{:14} {:34} {:9.0f} {:8.1f} {:6.2f}\n", s.name, name, rate, 1e6 * seconds, rate / copy);
      out["rows"].push_back({{"shape", s.name},
                             {"map", name},
                             {"bytes", bytes},
                             {"microseconds", 1e6 * seconds},
                             {"gb_a_second", rate},
                             {"share_of_copy", rate / copy}});
    };
    using fused::As;
    {
      const Tensor x = random({s.directions, s.rows, s.width}), y = random({s.directions, s.rows, s.width});
      const fused::NormTape tape{random({s.rows, s.width}), random({s.rows, 1}).abs(), random({s.rows, s.width}),
                                 random({s.rows, 1}),       random({s.width}),         true};
      const double n = rows * static_cast<double>(s.width);
      const fused::NormTangent dot = fused::norm_forward(tape, x, As::bf16x3);
      report("norm forward_tangent", n * (4 + 4 + 6), [&] { fused::norm_forward(tape, x, As::bf16x3); });
      report("norm forward_tangent with form", n * (4 + 4 + 4 + 6),
             [&] { fused::norm_forward_form(tape, 1e-5, x, As::bf16x3, Products::bf16x3); });
      report("norm adjoint_tangent + residual", n * (4 + 4 + 4 + 4),
             [&] { fused::norm_adjoint(tape, y, dot.xh_dot, dot.s, x); });
      report("split", n * (4 + 6), [&] { fused::split(x); });
      const Tensor cos = random({s.rows, s.width / s.heads / 2}), sin = random({s.rows, s.width / s.heads / 2});
      report("rotary", n * (4 + 4), [&] { fused::rotary(x, cos, sin, false, As::fp32); });
    }
    {
      const Tensor a = random({s.directions, s.rows, s.hidden}), u = random({s.directions, s.rows, s.hidden});
      const Tensor p = random({s.rows, s.hidden}), q = random({s.rows, s.hidden});
      const double n = rows * static_cast<double>(s.hidden);
      report("activation", n * (4 + 6), [&] { fused::weighted_sum({{a, p}}, As::bf16x3); });
      report("gate forward_tangent", n * (8 + 6), [&] { fused::weighted_sum({{a, p}, {u, q}}, As::bf16x3); });
      report("gate forward_tangent with form", n * (8 + 8 + 6),
             [&] { fused::gate_forward_form(a, u, p, q, p, q, As::bf16x3, Products::bf16x3); });
      report("gate adjoint_tangent", n * (12 + 12), [&] { fused::gate_adjoint(a, a, u, p, q, p, q, As::bf16x3); });
    }
    {
      const Tensor weight = random({s.hidden, s.width});
      const double n = static_cast<double>(s.hidden * s.width);
      report("split of a weight", n * (4 + 6), [&] { fused::split_weight(weight, 1); });
    }
  }
  if (!json_file.empty()) std::ofstream(json_file) << out.dump(1) << "\n";
}

}  // namespace
}  // namespace hesper

int main(int argc, char** argv) {
  std::string json_file;
  CLI::App app{"rates of the fused maps on a GPU"};
  app.add_option("--json", json_file);
  CLI11_PARSE(app, argc, argv);
  try {
    hesper::run(json_file);
  } catch (const std::exception& e) {
    std::cerr << "bench_gpu_maps: " << e.what() << "\n";
    return 1;
  }
  return 0;
}
