#include "ops/cuda/attention.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "ops/cuda/attention_adjoint.cuh"
#include "ops/cuda/attention_forward.cuh"
#include "ops/cuda/attention_planes.cuh"

namespace hesper::attention_cuda {
namespace {

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("[attention] ") + what + ": " + cudaGetErrorString(error));
}

static_assert(tile_bytes(64) == Tile<64>::bytes && tile_bytes(128) == Tile<128>::bytes);

/// Hands out pieces of the workspace, and collects the tensors to split into it.
class Carver {
 public:
  Carver(void* base, const Shape& shape) : base_(static_cast<char*>(base)), shape_(shape) {}
  /// Tiles of x (directions, T, heads*D); null x: one zero tensor for all directions.
  Plane plane(const float* x, int64_t heads, int64_t directions, bool tangent, float factor = 1) {
    const int64_t head = blocks_of(shape_) * tile_bytes(shape_.width), own = x == nullptr || !tangent ? 1 : directions;
    char* const at = take(own * heads * head);
    jobs_.job[jobs_.count++] = {x, at, static_cast<int>(heads), static_cast<int>(own), factor};
    return {at, own == 1 ? 0 : heads * head, head};
  }
  float* rows(int64_t directions) {
    return reinterpret_cast<float*>(take(directions * shape_.heads * blocks_of(shape_) * kBlock * 4));
  }
  char* take(int64_t bytes) {
    char* const at = base_ + used_;
    used_ += (bytes + 255) / 256 * 256;
    return at;
  }
  void split(cudaStream_t stream) {
    jobs_.tokens = static_cast<int>(shape_.tokens), jobs_.width = static_cast<int>(shape_.width);
    jobs_.blocks = blocks_of(shape_);
    split_tiles(jobs_, stream);
  }

 private:
  SplitJobs jobs_;
  char* base_;
  Shape shape_;
  int64_t used_ = 0;
};

RowJobs row_jobs(const Shape& shape, const Tape& tape, float* L) {
  RowJobs jobs;
  jobs.tokens = static_cast<int>(shape.tokens), jobs.heads = static_cast<int>(shape.heads);
  jobs.blocks = blocks_of(shape);
  jobs.job[jobs.count++] = {tape.L, L, 1, 1.4426950408889634f, INFINITY};
  return jobs;
}

template <class Kernel, class Arguments>
void launch(Kernel kernel, dim3 grid, int threads, int shared_bytes, const Arguments& arguments, cudaStream_t stream) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes), "shared memory");
  kernel<<<grid, threads, shared_bytes, stream>>>(arguments);
  check(cudaGetLastError(), "launch");
}

template <int D, bool Full, bool Form>
void launch_forward(const ForwardArguments& a, cudaStream_t stream) {
  using Cut = ForwardShape<D, Form>;
  const dim3 grid(a.heads, (a.blocks + 1) / 2, (a.directions + Cut::directions - 1) / Cut::directions);
  launch(forward_kernel<D, Full, Form>, grid, Cut::threads, Cut::shared_bytes, a, stream);
}
template <int D, bool Full, Sweep sweep>
void launch_adjoint(const AdjointArguments& a, float* q_out, float scale, cudaStream_t stream) {
  using Cut = AdjointShape<D>;
  launch(adjoint_kernel<D, Full, sweep>, dim3(a.heads / a.group * a.directions * a.runs), Cut::threads,
         Cut::shared_bytes, a, stream);
  if (q_out == nullptr) return;
  GatherArguments g{a.q_sums, q_out, a.runs, {}, scale, a.tokens, a.blocks, a.heads, a.width, a.directions};
  std::copy_n(a.run_begin, kMostRuns + 1, g.run_begin);
  launch(gather_kernel<D>, dim3(a.directions * a.heads * a.blocks), 128, 0, g, stream);
}

/// call.template operator()<D, Full>() at the padded width.
template <class Call>
void at_width(const Shape& shape, Products products, const Call& call) {
  const auto at = [&]<int D>() {
    products == Products::bf16x3 ? call.template operator()<D, true>() : call.template operator()<D, false>();
  };
  if (shape.width <= 64)
    at.template operator()<64>();
  else if (shape.width <= 80)
    at.template operator()<80>();
  else if (shape.width <= 96)
    at.template operator()<96>();
  else
    at.template operator()<128>();
}

void refuse_unserved(const Shape& shape) {
  if (serves(shape)) return;
  throw std::invalid_argument("[attention] no fused kernel for " + std::to_string(shape.heads) + " heads over " +
                              std::to_string(shape.kv_heads) + " key/value heads of width " +
                              std::to_string(shape.width));
}

template <class Arguments>
Arguments sized(const Shape& shape, int64_t directions) {
  Arguments a;
  a.tokens = static_cast<int>(shape.tokens), a.blocks = blocks_of(shape), a.heads = static_cast<int>(shape.heads);
  a.group = static_cast<int>(shape.heads / shape.kv_heads), a.width = static_cast<int>(shape.width);
  a.directions = static_cast<int>(directions);
  return a;
}

ForwardArguments forward_arguments(const Shape& shape, const Tape& tape, const Tangents& dot, int64_t directions,
                                   float* o_dot, float* r, Carver& carver) {
  auto a = sized<ForwardArguments>(shape, directions);
  a.q = carver.plane(tape.q, shape.heads, 1, false, shape.scale);
  a.k = carver.plane(tape.k, shape.kv_heads, 1, false);
  a.v = carver.plane(tape.v, shape.kv_heads, 1, false);
  a.q_dot = carver.plane(dot.q, shape.heads, directions, true, shape.scale);
  a.k_dot = carver.plane(dot.k, shape.kv_heads, directions, true);
  a.v_dot = carver.plane(dot.v, shape.kv_heads, directions, true);
  a.o = tape.o, a.o_bar = tape.o_bar, a.o_dot = o_dot, a.r = r;
  return a;
}

/// What the sweep of the adjoints writes.
void set_outputs(AdjointArguments& a, const Shape& shape, const Adjoints& out, Carver& carver) {
  a.k_out = out.k, a.v_out = out.v;
  const Runs runs = runs_of(shape, a.directions);
  a.runs = runs.count;
  std::copy_n(runs.begin, kMostRuns + 1, a.run_begin);
  a.q_sums = reinterpret_cast<float*>(carver.take(sums_bytes(shape, a.directions)));
}

}  // namespace

void forward_tangent(const Shape& shape, const Tape& tape, const Tangents& dot, int64_t directions, Products products,
                     float* o_dot, float* r, void* workspace, cudaStream_t stream) {
  refuse_unserved(shape);
  Carver carver(workspace, shape);
  ForwardArguments a = forward_arguments(shape, tape, dot, directions, o_dot, r, carver);
  float* const L = carver.rows(1);
  a.L = L;
  carver.split(stream);
  transpose_rows(row_jobs(shape, tape, L), stream);
  at_width(shape, products, [&]<int D, bool Full>() { launch_forward<D, Full, false>(a, stream); });
}

void adjoint_tangent(const Shape& shape, const Tape& tape, const Tangents& dot, const float* o_dot, const float* r,
                     const float* o_bar_dot, int64_t directions, Products products, const Adjoints& bar_dot,
                     void* workspace, cudaStream_t stream) {
  refuse_unserved(shape);
  const bool tangents = dot.q != nullptr || dot.k != nullptr || dot.v != nullptr;
  Carver carver(workspace, shape);
  auto a = sized<AdjointArguments>(shape, directions);
  a.q = carver.plane(tape.q, shape.heads, 1, false, shape.scale);
  a.k = carver.plane(tape.k, shape.kv_heads, 1, false);
  a.v = carver.plane(tape.v, shape.kv_heads, 1, false);
  a.o_bar_dot = carver.plane(o_bar_dot, shape.heads, directions, true);
  float *const L = carver.rows(1), *const Dl_dot = carver.rows(directions);
  a.L = L, a.Dl_dot = Dl_dot;
  RowJobs rows = row_jobs(shape, tape, L);
  if (tangents) {
    a.o_bar = carver.plane(tape.o_bar, shape.heads, 1, false);
    a.q_dot = carver.plane(dot.q, shape.heads, directions, true, shape.scale);
    a.k_dot = carver.plane(dot.k, shape.kv_heads, directions, true);
    a.v_dot = carver.plane(dot.v, shape.kv_heads, directions, true);
    float *const Dl = carver.rows(1), *const r_row = carver.rows(directions);
    rows.job[rows.count++] = {tape.Dl, Dl, 1, 1, 0};
    rows.job[rows.count++] = {r, r_row, static_cast<int>(directions), 1, 0};
    a.Dl = Dl, a.r = r_row;
  }
  set_outputs(a, shape, bar_dot, carver);
  carver.split(stream);
  transpose_rows(rows, stream);
  sum_rows({o_bar_dot, tape.o, tape.o_bar, tangents ? o_dot : nullptr, Dl_dot, a.tokens, a.heads, a.width, a.blocks,
            a.directions},
           stream);
  at_width(shape, products, [&]<int D, bool Full>() {
    tangents ? launch_adjoint<D, Full, Sweep::adjoint_tangent>(a, bar_dot.q, shape.scale, stream)
             : launch_adjoint<D, Full, Sweep::plain>(a, bar_dot.q, shape.scale, stream);
  });
}

void tangent_and_form(const Shape& shape, const Tape& tape, const Tangents& dot, int64_t directions, Products products,
                      float* o_dot, float* r, const Adjoints& prime, void* workspace, cudaStream_t stream) {
  refuse_unserved(shape);
  Carver carver(workspace, shape);
  ForwardArguments f = forward_arguments(shape, tape, dot, directions, o_dot, r, carver);
  auto a = sized<AdjointArguments>(shape, directions);
  a.q = f.q, a.k = f.k, a.v = f.v, a.q_dot = f.q_dot, a.k_dot = f.k_dot;
  a.o_bar = carver.plane(tape.o_bar, shape.heads, 1, false);
  float *const L = carver.rows(1), *const Dl = carver.rows(1);
  f.L = a.L = L, a.Dl = Dl;
  a.r = f.r_row = carver.rows(directions), a.Dl_dot = f.e_row = carver.rows(directions);
  RowJobs rows = row_jobs(shape, tape, L);
  rows.job[rows.count++] = {tape.Dl, Dl, 1, 1, 0};
  set_outputs(a, shape, prime, carver);
  carver.split(stream);
  transpose_rows(rows, stream);
  at_width(shape, products, [&]<int D, bool Full>() {
    launch_forward<D, Full, true>(f, stream);
    launch_adjoint<D, Full, Sweep::form>(a, prime.q, shape.scale, stream);
  });
}

}  // namespace hesper::attention_cuda
