#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hesper {

// Layer names keep their dots; what a folder or a shell could trip over becomes '_'.
std::string file_safe(const std::string& name);

// What the file name of an exact result is made of.
struct NameParts {
  std::vector<std::string> layers;  // as the user names them, e.g. self_attn.q_proj, or a parameter's full name
  std::vector<int64_t> blocks;      // ascending; empty for a parameter outside the blocks
  bool first_layers = false;        // `layers` are the first linear layers of a block in module order
  bool first_weights = true;        // the first t weights of row 0 of every layer (--t)
  int64_t t = 0;                    // weights of a layer, when first_weights
  int64_t n = 0;                    // rows of H
  int64_t b = 0;                    // windows
  uint64_t seed = 0;
  int64_t seqlen = 2048;         // tokens of a window
  bool perplexity = false;       // objective perplexity, not the mean cross entropy
  std::string method;            // e.g. gauss-newton; empty for the Hessian itself
  std::string selection_sha256;  // hex; its first 8 digits name a selection that the reference tool has no name for
};

// Name without folder and extension. The reference tool's names while they can say it:
//   hessian_{layer}_block{i}_t{t}_b{b}_seed{seed}                            one layer of one block
//   hessian_{layer}_{num_blocks}_blocks_t{t}_b{b}_seed{seed}                 one layer of the blocks 0..num_blocks-1
//   hessian_{num_layers}_layers_{num_blocks}_blocks_t{t}_b{b}_seed{seed}     first layers of the blocks 0..num_blocks-1
// Any other selection has a like name and ends in _sel{8 hex}, with n{n} for t{t} where it is not the first weights.
// Appended as needed: _T{seqlen} (not 2048), _perplexity, _{method}, _sel{8 hex}.
// Throws std::invalid_argument when there is no layer, or a selection's digest is needed and shorter than 8 digits.
std::string result_name(const NameParts& parts);

}  // namespace hesper
