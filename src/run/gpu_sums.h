#pragma once
// Sums over the ranks of a run that travel from GPU to GPU, by c10d's NCCL.
#include <ATen/ATen.h>
#include <c10/util/intrusive_ptr.h>

#include <memory>

namespace c10d {
class Store;
}

namespace hesper {

class GpuSums {
 public:
  /// Meets the others at once, so that what NCCL takes of a GPU is gone before a plan looks at what is free. Every rank
  /// has a GPU of its own. Throws std::logic_error in a build without CUDA.
  GpuSums(const c10::intrusive_ptr<c10d::Store>& store, int rank, int world, at::Device device);
  ~GpuSums();
  GpuSums(const GpuSums&) = delete;
  GpuSums& operator=(const GpuSums&) = delete;

  /// t, contiguous fp64 on the CPU, becomes on rank 0 the sum over the ranks; elsewhere it stays.
  void reduce(const at::Tensor& t);

 private:
  struct Group;
  std::unique_ptr<Group> group_;
};

}  // namespace hesper
