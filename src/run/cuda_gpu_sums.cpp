#include "run/gpu_sums.h"

#define USE_C10D_NCCL
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <chrono>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

namespace hesper {
namespace {
// Numbers that travel at a time: 32 MiB of the GPU, which plans count with the libraries.
constexpr int64_t kAtOnce = int64_t{1} << 22;
// A window may take hours; who waits for a rank that is gone is told by the watch of Ranks.
constexpr std::chrono::hours kLongest{24 * 365};
}  // namespace

struct GpuSums::Group {
  c10::intrusive_ptr<c10d::ProcessGroupNCCL> nccl;
  at::Tensor buffer;  // (kAtOnce) fp64 on the GPU
};

GpuSums::GpuSums(const c10::intrusive_ptr<c10d::Store>& store, int rank, int world, at::Device device)
    : group_(std::make_unique<Group>()) {
  const c10::cuda::CUDAGuard guard(device);
  group_->buffer = at::zeros({kAtOnce}, at::TensorOptions(at::kDouble).device(device));
  const auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = std::chrono::duration_cast<std::chrono::milliseconds>(kLongest);
  group_->nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(c10::make_intrusive<c10d::PrefixStore>("nccl", store),
                                                             rank, world, options);
  reduce(at::zeros({1}, at::kDouble));
}

GpuSums::~GpuSums() {
  if (group_->nccl) group_->nccl->abort();  // waits for nobody
}

void GpuSums::reduce(const at::Tensor& t) {
  const c10::cuda::CUDAGuard guard(group_->buffer.device());
  const at::Tensor flat = t.view({-1});
  for (int64_t i = 0; i < flat.numel(); i += kAtOnce) {
    const at::Tensor here = flat.narrow(0, i, std::min(kAtOnce, flat.numel() - i));
    std::vector<at::Tensor> there = {group_->buffer.narrow(0, 0, here.numel())};
    there[0].copy_(here);
    group_->nccl->reduce(there)->wait();
    if (group_->nccl->getRank() == 0) here.copy_(there[0]);
  }
}

}  // namespace hesper
