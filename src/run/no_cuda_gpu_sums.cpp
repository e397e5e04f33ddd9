// Stands in for cuda_gpu_sums.cpp in builds without CUDA, where no rank has a GPU.
#include <stdexcept>

#include "run/gpu_sums.h"

namespace hesper {

struct GpuSums::Group {};

GpuSums::GpuSums(const c10::intrusive_ptr<c10d::Store>&, int, int, at::Device) {
  throw std::logic_error("[ranks] this build has no CUDA");
}
GpuSums::~GpuSums() = default;
void GpuSums::reduce(const at::Tensor&) {}

}  // namespace hesper
