#pragma once
// Directions a user brings: the step from one checkpoint to another, or a basis of his own, each a set of moves of
// whole parameters. d_1 .. d_K are in the order of the model, so that a pass carries only those that have begun.
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "model/weights.h"
#include "ops/directions.h"

namespace hesper {

enum class Grouping { model, block, layer, tensor };

struct NamedDirections {
  std::vector<std::string> names;  // K: "model", "block 3", "3.self_attn.q_proj", or a tensor's full name
  std::vector<int64_t> blocks;     // K: block of each, -1 outside the blocks or in several
  std::vector<double> norms;       // K: |d_k|
  std::vector<int64_t> weights;    // K: entries of the parameters that it moves
  std::vector<Move> moves;         // values in fp32 (fp64 where a checkpoint is stored so)

  int64_t count() const { return static_cast<int64_t>(names.size()); }
  /// The parameters that some direction moves, for passes that read products with directions alone.
  Selection selection() const;
  Directions directions(at::ScalarType dtype, at::Device device) const;
  /// Bytes of the directions in `dtype`.
  int64_t bytes(at::ScalarType dtype) const;
};

/// b - a, one direction a group. Tensors that are equal in both move nothing; a layer's weight and bias belong
/// together. Throws std::invalid_argument naming the first tensor whose shapes differ or that only one side has, or
/// saying that the two are identical.
NamedDirections directions_between(const Weights& a, const Weights& b, Grouping grouping);

/// Tensors (K, parameter's shape...) named as the parameters; direction k is row k of all of them. Throws
/// std::invalid_argument naming a tensor that is no parameter, has another shape, another K, or is not finite, and the
/// number of a direction that is zero.
NamedDirections directions_of_basis(const Weights& model, const SafetensorsFile& basis);

}  // namespace hesper
