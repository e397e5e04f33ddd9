#pragma once
// The tangent maps of ops/attention.h on a Hopper GPU: one sequence, K directions, raw device pointers, no Torch.
// Every tensor is contiguous fp32, 16-byte aligned, laid out as the engine stores it, heads side by side in a row:
// q, o (T, H*D); k, v (T, G*D); L, Dl (T, H); their tangents with K leading. docs/kernels/attention.md derives the
// kernels. Launches are asynchronous on `stream`; results do not depend on timing; `workspace`: workspace_bytes.
// Errors: std::invalid_argument for a shape that serves() refuses, std::runtime_error for what CUDA reports.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/cuda/attention_sizes.h"

namespace hesper::attention_cuda {

/// Of the tensor-core products. bf16x3: each factor hi + lo in bf16, hi hi + hi lo + lo hi summed in fp32 (error about
/// 1e-5). bf16: S, S_dot and so P in bf16x3, the other products of hi alone (error about 5e-3).
enum class Products { bf16x3, bf16 };

/// What the primal pass leaves of one sequence. forward_tangent reads neither o_bar nor Dl.
struct Tape {
  const float *q = nullptr, *k = nullptr, *v = nullptr;  // (T, H*D), (T, G*D), (T, G*D)
  const float *o = nullptr, *L = nullptr;                // (T, H*D), (T, H)
  const float *o_bar = nullptr, *Dl = nullptr;           // (T, H*D), (T, H)
};
/// Tangents of the inputs; null = zero.
struct Tangents {
  const float *q = nullptr, *k = nullptr, *v = nullptr;  // (K, T, H*D), (K, T, G*D), (K, T, G*D)
};
/// Where the adjoints' tangents, or Q', K', V', go; null = not wanted.
struct Adjoints {
  float *q = nullptr, *k = nullptr, *v = nullptr;  // (K, T, H*D), (K, T, G*D), (K, T, G*D)
};

/// o_dot (K, T, H*D), r (K, T, H). At least one tangent is there.
void forward_tangent(const Shape& shape, const Tape& tape, const Tangents& dot, int64_t directions, Products products,
                     float* o_dot, float* r, void* workspace, cudaStream_t stream);

/// {q, k, v}_bar_dot. o_dot and r: as forward_tangent left them. o_bar_dot (K, T, H*D); null = zero.
/// All of `dot` null (Gauss-Newton): the plain adjoint of o_bar_dot; o_dot and r are not read.
void adjoint_tangent(const Shape& shape, const Tape& tape, const Tangents& dot, const float* o_dot, const float* r,
                     const float* o_bar_dot, int64_t directions, Products products, const Adjoints& bar_dot,
                     void* workspace, cudaStream_t stream);

/// Gram pass: o_dot, r as forward_tangent, and Q', K', V' of ops/attention.h, so that the second-order form of
/// directions i and j is the symmetric part of sum x_dot_i . x'_j.
void tangent_and_form(const Shape& shape, const Tape& tape, const Tangents& dot, int64_t directions, Products products,
                      float* o_dot, float* r, const Adjoints& prime, void* workspace, cudaStream_t stream);

}  // namespace hesper::attention_cuda
