#include "report/names.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <stdexcept>

namespace hesper {
namespace {

bool are_first_blocks(const std::vector<int64_t>& blocks) {
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i] != static_cast<int64_t>(i)) return false;
  }
  return !blocks.empty();
}

}  // namespace

std::string file_safe(const std::string& name) {
  std::string out = name;
  std::replace_if(
      out.begin(), out.end(),
      [](unsigned char c) { return !(std::isalnum(c) || c == '.' || c == '_' || c == '-' || c >= 0x80); }, '_');
  return out;
}

std::string result_name(const NameParts& parts) {
  if (parts.layers.empty()) throw std::invalid_argument("a result's name needs at least one layer");
  const bool one_layer = parts.layers.size() == 1;
  const bool one_block = parts.blocks.size() == 1;
  const bool in_reference =
      parts.first_weights &&
      ((one_layer && one_block) || (are_first_blocks(parts.blocks) && (one_layer || parts.first_layers)));

  std::string name = "hessian_";
  name += one_layer ? file_safe(parts.layers[0]) : fmt::format("{}_layers", parts.layers.size());
  if (one_block && (one_layer || !in_reference)) {
    name += fmt::format("_block{}", parts.blocks[0]);
  } else if (!parts.blocks.empty()) {
    name += fmt::format("_{}_blocks", parts.blocks.size());
  }
  name += parts.first_weights ? fmt::format("_t{}", parts.t) : fmt::format("_n{}", parts.n);
  name += fmt::format("_b{}_seed{}", parts.b, parts.seed);

  if (parts.seqlen != 2048) name += fmt::format("_T{}", parts.seqlen);
  if (parts.perplexity) name += "_perplexity";
  if (!parts.method.empty()) name += fmt::format("_{}", file_safe(parts.method));
  if (!in_reference) {
    if (parts.selection_sha256.size() < 8) {
      throw std::invalid_argument(
          fmt::format("a result's name needs 8 digits of the selection's sha256, not '{}'", parts.selection_sha256));
    }
    name += fmt::format("_sel{}", parts.selection_sha256.substr(0, 8));
  }
  return name;
}

}  // namespace hesper
