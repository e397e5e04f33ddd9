#include "hessian/selection_request.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fnmatch.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <stdexcept>
#include <string_view>

#include "checkpoint/gguf_names.h"
#include "text/windows.h"

namespace hesper {
namespace {

template <typename... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
  throw std::invalid_argument(fmt::format(format, std::forward<Args>(args)...));
}

bool matches(const std::string& glob, const std::string& name) { return fnmatch(glob.c_str(), name.c_str(), 0) == 0; }
bool is_glob(const std::string& text) { return text.find_first_of("*?[") != std::string::npos; }

// The name inside a block: "self_attn.q_proj.bias".
std::string local_name(const ParameterSpec& spec) {
  return spec.layer + spec.name.substr(spec.name.rfind(spec.layer) + spec.layer.size());
}

std::string last_component(const std::string& layer) { return layer.substr(layer.rfind('.') + 1); }

std::string label_of(const ParameterSpec& spec) {
  if (spec.block < 0) return spec.name;
  return spec.linear_weight ? spec.layer : local_name(spec);
}

// Layers of the blocks that have a matrix, in module order.
std::vector<std::string> block_layers(const std::vector<ParameterSpec>& table) {
  std::vector<std::string> layers;
  std::set<std::string> seen;
  for (const ParameterSpec& spec : table) {
    if (spec.block >= 0 && spec.linear_weight && seen.insert(spec.layer).second) layers.push_back(spec.layer);
  }
  return layers;
}

class Chooser {
 public:
  Chooser(const std::vector<ParameterSpec>& table, const std::vector<int64_t>& blocks)
      : table_(table), blocks_(blocks.begin(), blocks.end()), layers_(block_layers(table)) {}

  void choose(const std::string& layer) {
    const auto here = [&](const ParameterSpec& spec) { return blocks_.contains(spec.block); };
    const auto linear = [&](const ParameterSpec& spec) { return here(spec) && spec.linear_weight; };
    const bool found =
        layer == "all" ? add(linear)
        : is_glob(layer)
            ? add([&](const auto& spec) {
                return linear(spec) && (matches(layer, spec.layer) || matches(layer, last_component(spec.layer)));
              }) ||
                  add([&](const auto& spec) { return here(spec) && matches(layer, local_name(spec)); }) ||
                  add([&](const auto& spec) { return matches(layer, spec.name); }) ||
                  add([&](const auto& spec) { return has_gguf_name(spec, layer); })
            : add([&](const auto& spec) { return spec.name == layer; }) ||
                  add([&](const auto& spec) { return linear(spec) && spec.layer == layer; }) ||
                  add([&](const auto& spec) { return here(spec) && local_name(spec) == layer; }) ||
                  add_short(layer, linear) || add([&](const auto& spec) { return has_gguf_name(spec, layer); });
    if (found) return;
    if (layer == "lm_head" || layer == "lm_head.weight") {
      for (const ParameterSpec& spec : table_) {
        if (spec.name == "lm_head.weight") refuse("--layer {}: its full name is lm_head.weight", layer);
      }
      refuse("--layer {}: this model's head is tied to the embedding: select {}", layer, table_.at(0).name);
    }
    std::set<int64_t> elsewhere;
    for (const ParameterSpec& spec : table_)
      if (spec.linear_weight && (matches(layer, spec.layer) || matches(layer, last_component(spec.layer))))
        elsewhere.insert(spec.block);
    if (!elsewhere.empty())
      refuse("--layer {}: not in the chosen blocks ({}); it is in {}", layer, fmt::join(blocks_, ", "),
             fmt::join(elsewhere, ", "));
    refuse("--layer {}: no such layer; a block has {}; any parameter can be given by its full name", layer,
           fmt::join(with_experts_joined(layers_), ", "));
  }

  const std::set<size_t>& chosen() const { return chosen_; }  // places in the table

 private:
  // "blk.0.attn_q.weight", wherever it is, or "attn_q.weight" of a chosen block; ".weight" may be left out.
  bool has_gguf_name(const ParameterSpec& spec, const std::string& glob) const {
    const std::string name = gguf_name(spec.name);
    if (name == spec.name) return false;
    const auto fits = [&](const std::string& text) { return matches(glob, text) || matches(glob + ".weight", text); };
    const size_t local = name.find('.', name.find('.') + 1) + 1;  // behind "blk.0."
    return fits(name) || (blocks_.contains(spec.block) && fits(name.substr(local)));
  }

  template <typename Accept>
  bool add(const Accept& accept) {
    bool any = false;
    for (size_t i = 0; i < table_.size(); ++i) {
      if (accept(table_[i])) chosen_.insert(i), any = true;
    }
    return any;
  }

  template <typename Accept>
  bool add_short(const std::string& name, const Accept& accept) {
    std::vector<std::string> candidates;
    for (const std::string& layer : layers_) {
      if (last_component(layer) == name) candidates.push_back(layer);
    }
    if (candidates.size() > 1)
      refuse("--layer {}: could be {}", name, fmt::join(with_experts_joined(candidates), " or "));
    return !candidates.empty() && add([&](const auto& spec) { return accept(spec) && spec.layer == candidates[0]; });
  }

  const std::vector<ParameterSpec>& table_;
  std::set<int64_t> blocks_;
  std::vector<std::string> layers_;
  std::set<size_t> chosen_;
};

IndexRange check_range(const char* flag, const std::optional<IndexRange>& range, int64_t size, const char* what,
                       const std::string& name) {
  if (!range) return {0, size};
  if (range->begin < 0 || range->end <= range->begin) {
    refuse("--{} {}:{}: an empty range", flag, range->begin, range->end);
  }
  if (range->end > size) refuse("--{} {}:{}: {} has only {} {}", flag, range->begin, range->end, name, size, what);
  return *range;
}

// Flat indices of one parameter: in the order of --indices, ascending otherwise; undefined for all of them.
at::Tensor entries(const SelectionRequest& request, const ParameterSpec& spec, uint64_t number) {
  const int64_t cols = spec.shape.back();
  const int64_t rows = spec.shape.size() > 1 ? spec.shape[0] : 1;
  const int64_t total = rows * cols;
  if (request.t) {
    if (*request.t < 1) refuse("--t {}: at least 1 weight is needed", *request.t);
    if (*request.t > cols) refuse("--t {}: row 0 of {} has only {} weights", *request.t, spec.name, cols);
    return at::arange(*request.t);
  }
  if (request.rows || request.cols) {
    const IndexRange r = check_range("rows", request.rows, rows, "rows", spec.name);
    const IndexRange c = check_range("cols", request.cols, cols, "columns", spec.name);
    return at::add(at::arange(r.begin, r.end).unsqueeze(1) * cols, at::arange(c.begin, c.end)).flatten();
  }
  if (request.indices) {
    const at::Tensor given = request.indices->to(at::kLong).flatten(), flat = std::get<0>(given.sort());
    if (flat.numel() == 0) refuse("--indices: no index is given");
    const auto low = flat[0].item<int64_t>(), high = flat[-1].item<int64_t>();
    if (low < 0) refuse("--indices: {} is negative", low);
    if (high >= total) refuse("--indices: {} is outside {}, which has {} weights", high, spec.name, total);
    const at::Tensor again = flat.slice(0, 1).eq(flat.slice(0, 0, -1)).nonzero();
    if (again.numel() > 0) refuse("--indices: {} is given twice", flat[again[0].item<int64_t>()].item<int64_t>());
    return given;
  }
  if (request.random) {
    if (*request.random < 1) refuse("--random {}: at least 1 weight is needed", *request.random);
    if (*request.random > total) refuse("--random {}: {} has only {} weights", *request.random, spec.name, total);
    // A seed of its own for each parameter, whatever else is selected.
    const uint64_t seed = request.seed ^ ((number + 1) * 0xd1342543de82ef95);
    return at::tensor(random_subset(total, *request.random, seed), at::kLong);
  }
  return {};
}

}  // namespace

std::vector<int64_t> parse_blocks(const std::string& text, int64_t blocks) {
  std::set<int64_t> chosen;
  const auto number = [&](std::string_view part) {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc() || end != part.data() + part.size() || value < 0) {
      refuse("--block {}: 0, 0-11, 0,3 or all expected", text);
    }
    if (value >= blocks) refuse("--block {}: the model has {} blocks, 0 to {}", text, blocks, blocks - 1);
    return value;
  };
  std::string_view rest = text;
  if (text == "all") {
    for (int64_t i = 0; i < blocks; ++i) chosen.insert(i);
  }
  while (text != "all") {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view part = rest.substr(0, comma);
    const size_t dash = part.find('-');
    const int64_t first = number(part.substr(0, dash));
    const int64_t last = dash == std::string_view::npos ? first : number(part.substr(dash + 1));
    if (last < first) refuse("--block {}: {}-{} is an empty range", text, first, last);
    for (int64_t i = first; i <= last; ++i) chosen.insert(i);
    if (comma == rest.size()) break;
    rest.remove_prefix(comma + 1);
  }
  return {chosen.begin(), chosen.end()};
}

ResolvedSelection resolve_selection(const std::vector<ParameterSpec>& table, int64_t blocks,
                                    const SelectionRequest& request) {
  if (request.t.has_value() + (request.rows || request.cols) + request.indices.has_value() +
          request.random.has_value() >
      1) {
    refuse("--t, --rows with --cols, --indices and --random exclude each other");
  }
  if (request.layers.empty()) refuse("--layer: no layer is given");
  Chooser chooser(table, parse_blocks(request.blocks, blocks));
  for (const std::string& layer : request.layers) chooser.choose(layer);

  ResolvedSelection resolved;
  for (const size_t i : chooser.chosen()) {  // table order: block, then layer in module order
    const ParameterSpec& spec = table[i];
    const int64_t begin = resolved.selection.size();
    const at::Tensor some = entries(request, spec, i);
    some.defined() ? resolved.selection.add(static_cast<int>(i), spec.shape, some)
                   : resolved.selection.add_whole(static_cast<int>(i), spec.shape);
    resolved.tensors.push_back(
        {static_cast<int>(i), spec.name, label_of(spec), spec.block, spec.shape, begin, resolved.selection.size()});
  }
  return resolved;
}

std::vector<ResolvedSelection> split_by_tensor(const ResolvedSelection& selection) {
  std::vector<ResolvedSelection> parts;
  for (size_t i = 0; i < selection.tensors.size(); ++i) {
    ResolvedSelection one;
    SelectedTensor tensor = selection.tensors[i];
    const SelectedPart& part = selection.selection.parts()[i];
    part.whole ? one.selection.add_whole(tensor.parameter, tensor.shape)
               : one.selection.add(tensor.parameter, tensor.shape, part.flat);
    tensor.end -= tensor.begin;
    tensor.begin = 0;
    one.tensors.push_back(std::move(tensor));
    parts.push_back(std::move(one));
  }
  return parts;
}

}  // namespace hesper
