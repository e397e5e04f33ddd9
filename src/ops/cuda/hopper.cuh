#pragma once
// Hopper's asynchronous instructions as functions: mbarrier, bulk copy into shared memory, wgmma. Names follow the PTX
// manual.
#include <cstdint>

namespace hesper::hopper {

/// x, as if just made: what is computed from it is not kept over a loop, where it would spill. (With shared memory
/// full, a spilled register comes back from the L2 cache: 400 cycles.)
__device__ inline uint32_t fresh(uint32_t x) {
  asm volatile("" : "+r"(x));
  return x;
}

__device__ inline uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// ---- mbarrier: a phase ends when `count` arrivals and all announced bytes are in ----
__device__ inline void barrier_init(uint32_t barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
__device__ inline void barrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ inline void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void barrier_expect(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ inline void barrier_wait(uint32_t barrier, int parity) {
  asm volatile(
      "{\n.reg .pred done;\nAGAIN:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra AGAIN;\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
/// `bytes` (a multiple of 16) from global to shared memory; `barrier` counts them.
__device__ inline void bulk_copy(uint32_t to, const void* from, int bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}
/// `bytes` of global memory into the L2 cache.
__device__ inline void prefetch(const void* from, int bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}
/// Shared memory written by ordinary stores becomes visible to wgmma (before the barrier that orders the threads).
__device__ inline void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
/// Barrier `id` (1 to 15) of the 128 threads of a warpgroup.
__device__ inline void warpgroup_sync(int id) { asm volatile("bar.sync %0, 128;" ::"r"(id) : "memory"); }
template <int Registers>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}

// ---- wgmma ----
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Until at most `Pending` committed groups are in flight.
template <int Pending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}
/// Keeps the compiler from using registers of a product before the wait above this call.
template <int n>
__device__ inline void hold(float (&x)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) asm volatile("" : "+f"(x[i])::"memory");
}
template <int n>
__device__ inline void hold(uint32_t (&x)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) asm volatile("" : "+r"(x[i])::"memory");
}

/// Descriptor of a bf16 matrix in shared memory, 128-byte swizzle, rows of 128 bytes: 8 rows every 1024 bytes; `wide` =
/// bytes between blocks of 64 columns where a product runs across them (operands whose columns are M or N).
__device__ inline uint64_t descriptor(uint32_t address, int wide = 16) {
  address = fresh(address);
  return uint64_t{1} << 62 | uint64_t{1024 >> 4} << 32 | static_cast<uint64_t>(wide >> 4) << 16 |
         ((address & 0x3ffff) >> 4);
}

/// d (64, N) = (keep ? d : 0) + A (64, 16) B (16, N). ta, tb = 1: the rows in memory run over K.
/// d[4j..4j+3] of a thread: rows g, g, g + 8, g + 8 and columns 8j + 2t, 8j + 2t + 1 twice, g = lane / 4, t = lane % 4.
template <int N>
struct Wgmma;

#define HESPER_D16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define HESPER_D32 HESPER_D16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define HESPER_D40 HESPER_D32 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define HESPER_D48 HESPER_D40 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define HESPER_D64 HESPER_D48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define HESPER_O8(i)                                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define HESPER_O16 HESPER_O8(0), HESPER_O8(8)
#define HESPER_O32 HESPER_O16, HESPER_O8(16), HESPER_O8(24)
#define HESPER_O40 HESPER_O32, HESPER_O8(32)
#define HESPER_O48 HESPER_O40, HESPER_O8(40)
#define HESPER_O64 HESPER_O48, HESPER_O8(48), HESPER_O8(56)
#define HESPER_WGMMA(N, D, O, i0, i1, i2, i3, i4, i5, i6)                                                    \
  template <>                                                                                                \
  struct Wgmma<N> {                                                                                          \
    template <int ta, int tb>                                                                                \
    __device__ static void multiply(float (&d)[N / 2], uint64_t a, uint64_t b, int keep) {                   \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " i2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N       \
                   "k16.f32.bf16.bf16 {" D "}, " i0 ", " i1 ", p, 1, 1, " i3 ", " i4 ";\n}\n"                \
                   : O                                                                                       \
                   : "l"(a), "l"(b), "r"(keep), "n"(ta), "n"(tb));                                           \
    }                                                                                                        \
    template <int tb>                                                                                        \
    __device__ static void multiply(float (&d)[N / 2], const uint32_t* a, uint64_t b, int keep) {            \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " i5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N       \
                   "k16.f32.bf16.bf16 {" D "}, {" i0 "," i1 "," i2 "," i3 "}, " i4 ", p, 1, 1, " i6 ";\n}\n" \
                   : O                                                                                       \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep), "n"(tb));                \
    }                                                                                                        \
  };
HESPER_WGMMA(32, HESPER_D16, HESPER_O16, "%16", "%17", "%18", "%19", "%20", "%21", "%22")
HESPER_WGMMA(64, HESPER_D32, HESPER_O32, "%32", "%33", "%34", "%35", "%36", "%37", "%38")
HESPER_WGMMA(80, HESPER_D40, HESPER_O40, "%40", "%41", "%42", "%43", "%44", "%45", "%46")
HESPER_WGMMA(96, HESPER_D48, HESPER_O48, "%48", "%49", "%50", "%51", "%52", "%53", "%54")
HESPER_WGMMA(128, HESPER_D64, HESPER_O64, "%64", "%65", "%66", "%67", "%68", "%69", "%70")
#undef HESPER_WGMMA
#undef HESPER_O64
#undef HESPER_O48
#undef HESPER_O40
#undef HESPER_O32
#undef HESPER_O16
#undef HESPER_O8
#undef HESPER_D64
#undef HESPER_D48
#undef HESPER_D40
#undef HESPER_D32
#undef HESPER_D16

}  // namespace hesper::hopper
