#pragma once
// The maps of attention.h for the CPU, fp32 or fp64, one sequence, K directions. A block of rows of one head is
// taken at a time: P (and w = dS) of those rows are computed once and serve all directions of a task, the matrices of
// one direction stay in cache, and nothing of size K x T x T exists. Tensors are read and written where they lie,
// (K, T, H*D). A task is a key/value head and a chunk of directions; it alone writes its adjoints of K and V, so
// results do not depend on timing.
//
// In the Gram pass O_dot and the second-order form come from one sweep, 8 tile products a direction: S_dot 2, O_dot 2,
// Q' 2, K' 1, V' 1; Q', K', V' of a chunk of directions are reduced at once against Q_dot, K_dot, V_dot of all.
#include "ops/attention.h"

namespace hesper::attention_cpu {

/// What the primal pass leaves of one sequence.
struct Tape {
  Tensor q, k, v;    // (T, H*D), (T, G*D), (T, G*D)
  Tensor o, L;       // (T, H*D), (T, H)
  Tensor o_bar, Dl;  // (T, H*D), (T, H); forward_tangent reads neither
};
/// Tangents; undefined = zero.
struct Tangents {
  Tensor q, k, v, o;  // (K, T, H*D), (K, T, G*D), (K, T, G*D), (K, T, H*D)
  Tensor r;           // (K, T, H); undefined where neither q nor k moves
};

/// True for fp32 and fp64 on the CPU.
bool serves(const Tensor& x);

/// o (T, H*D) and L (T, H) of a tape that has q, k and v.
void forward(const AttentionShape& shape, Tape& tape);
/// {q, k, v}_bar (T, .) of tape.o_bar; fills Dl.
Tensors adjoint(const AttentionShape& shape, Tape& tape);
/// Fills dot.o and dot.r. At least one of q, k, v is defined.
void forward_tangent(const AttentionShape& shape, const Tape& tape, Tangents& dot);
/// {q, k, v}_bar_dot, each where its bit of `wanted` is set. o_bar_dot may be undefined if tangents are not; `dot` all
/// undefined: the plain adjoint of o_bar_dot.
Tensors adjoint_tangent(const AttentionShape& shape, const Tape& tape, const Tangents& dot, const Tensor& o_bar_dot,
                        unsigned wanted = ~0u);
/// forward_tangent, and the second-order form of all pairs of directions: (K, K) fp64, not yet symmetrised.
Tensor tangent_and_form(const AttentionShape& shape, const Tape& tape, Tangents& dot);

/// Most that any of the maps holds beside its arguments and results, all threads together. A thread's share is bounded
/// by 64 MiB and four blocks of rows.
int64_t scratch_bytes(const AttentionShape& shape, int64_t tokens, int64_t directions, int64_t element_size,
                      int threads);
/// The same of forward and adjoint.
int64_t primal_scratch_bytes(int64_t tokens, int64_t element_size, int threads);

}  // namespace hesper::attention_cpu
