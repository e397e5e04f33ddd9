#include "ops/cuda/logits_product.cuh"

#include <stdexcept>
#include <string>

namespace hesper::cuda {
namespace {

int processors() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

}  // namespace

int64_t workspace_bytes(const LogitsProduct& p) {
  const size_t bytes =
      p.lo ? LogitsGemm<true>::workspace(p, processors()) : LogitsGemm<false>::workspace(p, processors());
  return static_cast<int64_t>(bytes);
}

void logits_product(cudaStream_t stream, const LogitsProduct& p, void* workspace) {
  const cutlass::Status status = p.lo ? LogitsGemm<true>::run(p, processors(), workspace, stream)
                                      : LogitsGemm<false>::run(p, processors(), workspace, stream);
  if (status != cutlass::Status::kSuccess)
    throw std::runtime_error("[cuda] logits_product: " + std::to_string(p.directions) + " x " + std::to_string(p.rows) +
                             " rows, " + std::to_string(p.words) + " words, " + std::to_string(p.inner) +
                             " wide: " + cutlass::cutlassGetStatusString(status));
}

}  // namespace hesper::cuda
