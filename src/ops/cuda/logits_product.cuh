#pragma once
// A CUTLASS product whose epilogue is the head's map of logits tangents: z_dot stays in the accumulators, f comes in
// and the result goes out by bulk copies while the other warpgroup multiplies. Every direction reads the same u and f,
// which stay in the L2 cache.
#include <cutlass/cutlass.h>
#include <cutlass/gemm/device/gemm_universal_adapter.h>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/epilogue/fusion/sm90_callbacks_tma_warpspecialized.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>

#include "ops/cuda/logits_product.h"

namespace hesper::cuda {

/// x - bf16(x)
template <class T>
struct Remainder;
template <int N>
struct Remainder<cutlass::Array<float, N>> {
  CUTLASS_DEVICE cutlass::Array<float, N> operator()(const cutlass::Array<float, N>& x) const {
    cutlass::Array<float, N> out;
    CUTLASS_PRAGMA_UNROLL
    for (int i = 0; i < N; ++i) out[i] = x[i] - float(cutlass::bfloat16_t(x[i]));
    return out;
  }
};

// What may be chosen; lab/cuda/head measures it.
struct PingPong {  // a warpgroup writes its tile while the other multiplies its own
  using Main = cutlass::gemm::KernelTmaWarpSpecializedPingpong;
  using End = cutlass::epilogue::TmaWarpSpecialized;
  static constexpr int kRows = 64, kThreads = 128;
};
struct Cooperative {  // both share a tile
  using Main = cutlass::gemm::KernelTmaWarpSpecializedCooperative;
  using End = cutlass::epilogue::TmaWarpSpecializedCooperative;
  static constexpr int kRows = 128, kThreads = 256;
};

/// kLow: the result has a second piece. kColumns: of the parts in which a tile is written; kIn, kOut: parts of f and of
/// the result that are on their way.
template <bool kLow, class Schedule = PingPong, class Tile = cute::Shape<cute::_128, cute::_128, cute::_64>,
          class Cluster = cute::Shape<cute::_1, cute::_2, cute::_1>, int kColumns = 32, int kIn = 4, int kOut = 2>
struct LogitsGemm {
  using Bf16 = cutlass::bfloat16_t;
  using Own = cute::Stride<int64_t, cute::_1, int64_t>;      // a matrix for each direction
  using Shared = cute::Stride<int64_t, cute::_1, cute::_0>;  // the same for all
  using Part = cute::Shape<cute::Int<Schedule::kRows>, cute::Int<kColumns>>;

  // The epilogue as a tree of CUTLASS's visitors.
  static constexpr auto kRound = cutlass::FloatRoundStyle::round_to_nearest;
  template <class Node, class... Children>
  using Visit = cutlass::epilogue::fusion::Sm90EVT<Node, Children...>;
  template <template <class> class F, class Out = float>
  using Map = cutlass::epilogue::fusion::Sm90Compute<F, Out, float, kRound>;
  template <class Stride, class T>
  using Swizzle =
      decltype(cutlass::epilogue::collective::detail::sm90_get_epilogue_smem_swizzle_layout_atom<Stride, T, Part>());
  using Store =
      decltype(cutlass::epilogue::collective::detail::sm90_get_smem_store_op_for_accumulator<Own, Bf16, Part>());

  using Mean =
      cutlass::epilogue::fusion::Sm90ColBroadcast<0, Tile, float, float, cute::Stride<cute::_1, cute::_0, int64_t>>;
  using Centred = Visit<Map<cutlass::minus>, cutlass::epilogue::fusion::Sm90AccFetch, Mean>;
  template <class Out>
  using Y = Visit<Map<cutlass::multiplies, Out>, Centred, cutlass::epilogue::fusion::Sm90SrcFetch<float>>;
  using Same = cutlass::epilogue::fusion::Sm90SplitTreeFetch;
  using Low = Visit<cutlass::epilogue::fusion::Sm90AuxStore<kOut, Part, Bf16, kRound, Own, Swizzle<Own, Bf16>, Store>,
                    Visit<Map<Remainder>, Same>>;
  using High = Visit<Map<cutlass::epilogue::thread::Identity, Bf16>, Same>;
  using Tree = cute::conditional_t<kLow, cutlass::epilogue::fusion::Sm90SplitTreeVisitor<Y<float>, High, Low>, Y<Bf16>>;

  using Epilogue = cutlass::epilogue::collective::CollectiveEpilogue<
      cutlass::epilogue::Sm90TmaWarpSpecialized<kIn, kOut, cute::size(Part{}) / Schedule::kThreads, false, false>, Tile,
      Part, float, Shared, Bf16, Own, Tree, cute::SM90_TMA_LOAD, Swizzle<Shared, float>,
      decltype(cutlass::epilogue::collective::detail::sm90_get_smem_load_op_for_source<Shared, float, Part>()),
      cute::SM90_TMA_STORE, Swizzle<Own, Bf16>, Store, cute::Copy_Atom<cute::SM90_U32x4_STSM_N, cutlass::half_t>, void>;
  using Main = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Bf16, Own, 8, Bf16, Shared, 8, float, Tile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(sizeof(typename Epilogue::SharedStorage))>,
      typename Schedule::Main>::CollectiveOp;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<
      cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Main, Epilogue>>;

  static typename Gemm::Arguments arguments(const LogitsProduct& p, int processors) {
    const Own out{p.row, {}, p.rows * p.row};
    const typename Mean::Arguments mean{p.mean, 0, {{}, {}, p.rows}};
    typename Tree::Arguments tree;
    if constexpr (kLow)
      tree = {{{{}, mean, {}}, {}, {}}, {{{}, {}}, {static_cast<Bf16*>(p.lo), out}}, {{}, {}}};  // Y, Low, High
    else
      tree = {{{}, mean, {}}, {}, {}};
    const auto size = [](int64_t n) { return static_cast<int>(n); };
    typename Gemm::Arguments a{cutlass::gemm::GemmUniversalMode::kGemm,
                               {size(p.rows), size(p.words), size(p.inner), size(p.directions)},
                               {static_cast<const Bf16*>(p.x_dot),
                                {p.x_row, {}, p.rows * p.x_row},
                                static_cast<const Bf16*>(p.u),
                                {p.inner, {}, {}}},
                               {tree, p.f, {p.words, {}, {}}, static_cast<Bf16*>(p.hi), out}};
    a.hw_info.sm_count = processors;
    return a;
  }

  static size_t workspace(const LogitsProduct& p, int processors) {
    return Gemm::get_workspace_size(arguments(p, processors));
  }
  static cutlass::Status run(const LogitsProduct& p, int processors, void* workspace, cudaStream_t stream) {
    const auto a = arguments(p, processors);
    if (const cutlass::Status status = Gemm::can_implement(a); status != cutlass::Status::kSuccess) return status;
    Gemm gemm;
    const cutlass::Status status = gemm.initialize(a, workspace, stream);
    return status == cutlass::Status::kSuccess ? gemm.run(stream) : status;
  }
};

}  // namespace hesper::cuda
