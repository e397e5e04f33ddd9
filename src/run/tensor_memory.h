#pragma once
// Where tensors of a CPU lie. The C library's heap cuts the place of a dropped tensor up for smaller ones, and the next
// of its size needs another: a pass that makes and drops tensors of a few sizes grows by a third and more. Here a
// dropped tensor's block waits whole for the next of nearly its size, and before more is taken than was ever in use
// (and a little) blocks that found none go back to the system.
#include <cstdint>

namespace hesper {

/// Makes all tensors of at least kWholeBlocks bytes that the process makes from now on lie in blocks of their own.
/// Smaller ones stay in the heap. Once, before there are threads.
void keep_tensors_in_blocks();

inline constexpr int64_t kWholeBlocks = int64_t{256} << 10;

/// Hands back every block that is not in use, and what is free in the heap.
void release_free_memory();

}  // namespace hesper
