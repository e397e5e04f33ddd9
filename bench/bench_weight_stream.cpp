// How fast a model's weights reach a GPU: streamed from the mapped file (src/ops/weight_stream.h) in one pass up and
// one down, against a copy of each to the GPU at once and against pinned memory, which is the bound. GB/s of stored
// bytes; beside each what LibTorch's allocator has taken of the GPU.
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "model/build_program.h"
#include "model/model.h"
#include "ops/weight_stream.h"
#include "run/device_memory.h"
#include "run/streamed_weights.h"
#include "timed_op.h"

namespace hesper {
namespace {

void run(const std::string& folder, int64_t limit) {
  const at::NoGradGuard no_grad;
  const at::Device device(at::kCUDA, 0);
  if (limit > 0) limit_device_memory(device, limit);
  const Model model = load_model(folder);
  const Program program = build_program(model.config(), 256, device);
  const Tensors& values = model.weights.values;
  std::vector<int> order = weight_order(program);
  std::erase_if(order, [&](int p) { return values[p].numel() <= small_parameter; });
  double bytes = 0;
  for (int p : order) bytes += static_cast<double>(values[p].nbytes());
  const int64_t before = device_memory(device).used;
  const auto time = [&](const std::string& what, double moved, const std::function<void()>& f) {
    synchronize(device);
    const double begin = seconds_now();
    f();
    synchronize(device);
    const double seconds = seconds_now() - begin;
    const auto taken = static_cast<double>(device_memory(device).used - before);
    std::cout << fmt::format("{:44} {:8.2f} s {:7.1f} GB/s   {:5.2f} GiB taken\n", what, seconds, moved / seconds / 1e9,
                             taken / (1 << 30));
  };
  {
    const Tensor pinned = at::empty({1 << 28}, at::TensorOptions(at::kByte).pinned_memory(true));
    const Tensor there = at::empty({1 << 28}, at::TensorOptions(at::kByte).device(device));
    time("pinned memory, 16 times 256 MiB", 16.0 * (1 << 28), [&] {
      for (int i = 0; i < 16; ++i) there.copy_(pinned, true);
    });
  }
  time("each weight at once, file as it is", bytes, [&] {
    for (int p : order) values[p].to(device);
  });
  time("each weight at once, file read before", bytes, [&] {
    for (int p : order) values[p].to(device);
  });
  std::vector<std::vector<int64_t>> shapes;
  std::vector<at::ScalarType> stored;
  for (const Tensor& value : values) shapes.push_back(value.sizes().vec()), stored.push_back(value.scalar_type());
  WeightStream stream(values, order, device, bytes_in_flight(program, shapes, stored));
  time("streamed, up", bytes, [&] {
    for (int p : order) stream.fetch(p);
  });
  time("streamed, down", bytes, [&] {
    for (size_t i = order.size(); i-- > 0;) stream.fetch(order[i]);
  });
  time("streamed, up, each raised to fp64", bytes, [&] {
    for (int p : order) stream.fetch(p).to(at::kDouble);
  });
}

}  // namespace
}  // namespace hesper

int main(int argc, char** argv) {
  CLI::App app("Weights streamed to a GPU.");
  std::string folder;
  double gib = 0;
  app.add_option("model", folder, "a model folder")->required();
  app.add_option("--limit", gib, "GiB that LibTorch may take of the GPU");
  CLI11_PARSE(app, argc, argv);
  try {
    hesper::run(folder, static_cast<int64_t>(gib * (1 << 30)));
  } catch (const std::exception& error) {
    std::cerr << "bench_weight_stream: " << error.what() << "\n";
    return 1;
  }
}
