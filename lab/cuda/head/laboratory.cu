// The head's product with its map in the epilogue, in the forms that CUTLASS offers, against cuBLAS and a map of its
// own: agreement with the latter, milliseconds (CUDA events, median of 9), TFLOP/s of the bf16 product.
#include <cublas_v2.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "ops/cuda/logits_product.cuh"
#include "ops/cuda/split.cuh"

using namespace hesper::cuda;

#define CHECK(call)                                              \
  do {                                                           \
    if (const int code = static_cast<int>(call); code != 0) {    \
      std::printf("%s: %s failed: %d\n", __FILE__, #call, code); \
      std::exit(1);                                              \
    }                                                            \
  } while (0)

__device__ float uniform(uint32_t seed, int64_t i) {  // in [-1, 1)
  uint32_t x = seed + static_cast<uint32_t>(i) * 2654435761u;
  x = (x ^ x >> 16) * 0x85ebca6bu;
  x = (x ^ x >> 13) * 0xc2b2ae35u;
  return static_cast<float>(static_cast<int>(x ^ x >> 16)) / 2147483648.f;
}
template <class T>
__global__ void fill(T* out, int64_t n, uint32_t seed) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x)
    out[i] = T(uniform(seed, i));
}
// f (z_dot - mean) as [hi | lo]: z_dot read from memory.
__global__ void map(int64_t directions, int64_t rows, int64_t words, const float* f, const float* z_dot,
                    const float* mean, AsPlanes out) {
  const int64_t quads = words / 4, i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= rows * quads) return;
  const int64_t row = i / quads, column = i % quads * 4;
  const float4 p = load(f + row * words + column);
  for (int64_t k = 0; k < directions; ++k) {
    const int64_t at = k * rows + row;
    out.store(at, column, words, p * (load(z_dot + at * words + column) - mean[at]));
  }
}

template <class T>
struct Memory {
  explicit Memory(int64_t n) : size(n) { CHECK(cudaMalloc(&data, n * sizeof(T))); }
  ~Memory() { cudaFree(data); }
  void fill_with(uint32_t seed) { fill<<<1024, 256>>>(data, size, seed); }
  std::vector<T> first(int64_t n) const {
    std::vector<T> out(std::min(n, size));
    CHECK(cudaMemcpy(out.data(), data, out.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }
  T* data = nullptr;
  int64_t size;
};

float milliseconds(const std::function<void()>& f) {
  cudaEvent_t begin, end;
  cudaEventCreate(&begin), cudaEventCreate(&end);
  std::vector<float> times;
  for (int i = 0; i < 12; ++i) {
    float ms = 0;
    cudaEventRecord(begin), f(), cudaEventRecord(end), cudaEventSynchronize(end), cudaEventElapsedTime(&ms, begin, end);
    if (i > 2) times.push_back(ms);
  }
  CHECK(cudaGetLastError());
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

struct World {
  int64_t directions, rows, words, inner;
  Memory<Bf16> x{directions * rows * inner}, u{words * inner}, out{2 * directions * rows * words};
  Memory<float> f{rows * words}, mean{directions * rows}, z_dot{directions * rows * words};
  int processors = 0;

  double flops() const { return 2.0 * static_cast<double>(directions * rows) * static_cast<double>(words * inner); }
  Bf16* low() const { return out.data + directions * rows * words; }
};

void compare(const std::vector<Bf16>& a, const std::vector<Bf16>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i)
    worst = std::fmax(worst, std::fabs(double(__bfloat162float(a[i])) - double(__bfloat162float(b[i]))));
  std::printf("  largest difference of hi %.1e%s\n", worst, std::isfinite(worst) ? "" : " NOT FINITE");
}

template <class Gemm>
void version(const char* name, World& w, const std::vector<Bf16>& wanted) {
  const LogitsProduct p{w.directions, w.rows,   w.words,     w.inner,    w.x.data, w.inner,
                        w.u.data,     w.f.data, w.mean.data, w.out.data, w.low(),  w.words};
  Memory<char> workspace(static_cast<int64_t>(Gemm::workspace(p, w.processors)) + 1);
  CHECK(cudaMemset(w.out.data, 0xff, static_cast<size_t>(w.out.size) * 2));
  CHECK(Gemm::run(p, w.processors, workspace.data, nullptr));
  CHECK(cudaDeviceSynchronize());
  const std::vector<Bf16> got = w.out.first(static_cast<int64_t>(wanted.size()));
  const float ms = milliseconds([&] { (void)Gemm::run(p, w.processors, workspace.data, nullptr); });
  std::printf("%-44s %d stages %8.3f ms %6.0f TFLOP/s", name, int(Gemm::Main::DispatchPolicy::Stages), ms,
              w.flops() / ms * 1e-9);
  compare(got, wanted);
}

int main() {
  using cute::_1, cute::_128, cute::_2, cute::_256, cute::_64, cute::Shape;
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s\n", properties.name);
  cublasHandle_t blas;
  CHECK(cublasCreate(&blas));
  // K = 16 directions of 2047 tokens that carry loss; 3 C of OPT-125M and of Llama-3.2-1B; a small odd one.
  for (const auto& [words, inner, rows] :
       {std::tuple{4096, 2304, 2047}, {2048, 2304, 2047}, {2048, 6144, 2047}, {520, 192, 1001}}) {
    World w{.directions = 16, .rows = rows, .words = words, .inner = inner};
    w.processors = properties.multiProcessorCount;
    w.x.fill_with(1), w.u.fill_with(2), w.f.fill_with(3), w.mean.fill_with(4);
    std::printf("K 16, %d tokens, %d words, inner %d\n", rows, words, inner);
    const float one = 1, zero = 0;
    const auto product = [&] {
      CHECK(cublasGemmEx(blas, CUBLAS_OP_T, CUBLAS_OP_N, words, static_cast<int>(16 * w.rows), inner, &one, w.u.data,
                         CUDA_R_16BF, inner, w.x.data, CUDA_R_16BF, inner, &zero, w.z_dot.data, CUDA_R_32F, words,
                         CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
    };
    const auto apply = [&] {
      map<<<static_cast<unsigned>((w.rows * words / 4 + 255) / 256), 256>>>(16, w.rows, words, w.f.data, w.z_dot.data,
                                                                            w.mean.data, {w.out.data, w.low()});
    };
    const float first = milliseconds(product), second = milliseconds(apply),
                both = milliseconds([&] { product(), apply(); });
    const std::vector<Bf16> wanted = w.out.first(int64_t{1} << 22);
    std::printf("v1 %-41s          %8.3f ms (%.3f at %.0f TFLOP/s, and %.3f)\n", "cuBLAS, then the map", both, first,
                w.flops() / first * 1e-9, second);
    version<LogitsGemm<true, Cooperative, Shape<_128, _256, _64>, Shape<_2, _1, _1>, 16, 2, 2>>(
        "v2 cooperative 128 x 256", w, wanted);
    version<LogitsGemm<true>>("v3 ping-pong 128 x 128", w, wanted);
    version<LogitsGemm<true, PingPong, Shape<_128, _128, _64>, Shape<_2, _1, _1>>>(
        "   ping-pong 128 x 128, cluster 2 x 1", w, wanted);
    version<LogitsGemm<true, PingPong, Shape<_128, _128, _64>, Shape<_1, _1, _1>>>("   ping-pong 128 x 128, no cluster",
                                                                                   w, wanted);
  }
}
