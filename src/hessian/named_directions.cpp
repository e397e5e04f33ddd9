#include "hessian/named_directions.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <stdexcept>

namespace hesper {
namespace {

template <typename... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
  throw std::invalid_argument(fmt::format(format, std::forward<Args>(args)...));
}

std::string shape_of(at::IntArrayRef shape) { return fmt::format("[{}]", fmt::join(shape.vec(), ", ")); }

// What fp32 cannot hold stays fp64.
at::ScalarType wide(at::ScalarType stored) { return stored == at::kDouble ? at::kDouble : at::kFloat; }

std::string group_of(const ParameterSpec& spec, Grouping grouping) {
  switch (grouping) {
    case Grouping::model:
      return "model";
    case Grouping::block:
      return spec.block < 0 ? spec.layer : fmt::format("block {}", spec.block);
    case Grouping::layer:
      return spec.block < 0 ? spec.layer : fmt::format("{}.{}", spec.block, spec.layer);
    case Grouping::tensor:
      return spec.name;
  }
  return {};
}

void add_move(NamedDirections& out, int64_t direction, int parameter, const Tensor& values) {
  const double norm = values.norm(2, at::kDouble).item<double>();
  const auto k = static_cast<size_t>(direction);
  out.norms[k] = std::hypot(out.norms[k], norm);
  out.weights[k] += values.numel();
  out.moves.push_back({direction, parameter, values});
}

void require_same_model(const Weights& a, const Weights& b) {
  for (const ParameterSpec& spec : a.specs) {
    const int other = b.index(spec.name);
    if (other < 0) refuse("{}: in the first checkpoint ({}), not in the second", spec.name, shape_of(spec.shape));
    if (b.specs[other].shape != spec.shape)
      refuse("{}: {} in the first checkpoint, {} in the second", spec.name, shape_of(spec.shape),
             shape_of(b.specs[other].shape));
  }
  for (const ParameterSpec& spec : b.specs)
    if (a.index(spec.name) < 0)
      refuse("{}: in the second checkpoint ({}), not in the first", spec.name, shape_of(spec.shape));
}

/// The weights of `b` put into a's place must mean the same function of them.
void require_same_config(const ModelConfig& a, const ModelConfig& b) {
  const auto same = [](const char* what, auto x, auto y) {
    if (x != y)
      refuse("the two checkpoints are different models: {} {} in the first, {} in the second", what,
             static_cast<double>(x), static_cast<double>(y));
  };
  same("heads", a.heads, b.heads);
  same("key/value heads", a.kv_heads, b.kv_heads);
  same("head width", a.head_dim, b.head_dim);
  same("norm epsilon", a.norm_eps, b.norm_eps);
  same("activation", static_cast<int>(a.activation), static_cast<int>(b.activation));
  same("norm before each half", a.norm_before, b.norm_before);
  same("rotary theta", a.rope_theta, b.rope_theta);
  same("rotary type", static_cast<int>(a.rope.type), static_cast<int>(b.rope.type));
  same("rotary factor", a.rope.factor, b.rope.factor);
  same("rotary low frequency factor", a.rope.low_freq_factor, b.rope.low_freq_factor);
  same("rotary high frequency factor", a.rope.high_freq_factor, b.rope.high_freq_factor);
  same("rotary original positions", a.rope.original_max_positions, b.rope.original_max_positions);
  same("rotary attention factor", a.rope.attention_factor, b.rope.attention_factor);
  same("yarn's beta_fast", a.rope.beta_fast, b.rope.beta_fast);
  same("yarn's beta_slow", a.rope.beta_slow, b.rope.beta_slow);
  same("yarn's truncate", a.rope.truncate, b.rope.truncate);
  for (const auto& [mine, other] :
       {std::pair(&a.rope.divisors, &b.rope.divisors), {&a.rope.long_divisors, &b.rope.long_divisors}})
    if (*mine != *other)
      refuse("the two checkpoints are different models: their divisors of rotary frequencies differ");
}

}  // namespace

Selection NamedDirections::selection() const {
  Selection out;
  std::set<int> parameters;
  for (const Move& move : moves)
    if (parameters.insert(move.parameter).second) out.add_moved(move.parameter);
  return out;
}

Directions NamedDirections::directions(at::ScalarType dtype, at::Device device) const {
  return Directions::moves(moves, count(), dtype, device);
}

int64_t NamedDirections::bytes(at::ScalarType dtype) const {
  int64_t entries = 0;
  for (const int64_t n : weights) entries += n;
  return entries * static_cast<int64_t>(c10::elementSize(dtype));
}

NamedDirections directions_between(const Weights& a, const Weights& b, Grouping grouping) {
  require_same_model(a, b);
  require_same_config(a.config, b.config);
  NamedDirections out;
  for (size_t p = 0; p < a.specs.size(); ++p) {
    const ParameterSpec& spec = a.specs[p];
    const Tensor &from = a.values[p], &to = b.values[b.index(spec.name)];
    const at::ScalarType dtype = wide(c10::promoteTypes(from.scalar_type(), to.scalar_type()));
    const Tensor step = to.to(dtype).sub(from.to(dtype));
    if (!step.any().item<bool>()) continue;
    const std::string name = group_of(spec, grouping);
    if (out.names.empty() || out.names.back() != name) {
      out.names.push_back(name);
      out.blocks.push_back(grouping == Grouping::model ? -1 : spec.block);
      out.norms.push_back(0);
      out.weights.push_back(0);
    }
    add_move(out, out.count() - 1, static_cast<int>(p), step);
  }
  if (out.names.empty()) refuse("the two checkpoints hold the same weights: no direction between them");
  return out;
}

NamedDirections directions_of_basis(const Weights& model, const SafetensorsFile& basis) {
  NamedDirections out;
  if (basis.tensors().empty()) refuse("{}: holds no tensor", basis.path());
  std::vector<int> parameters;
  int64_t count = -1;
  for (const TensorInfo& info : basis.tensors()) {
    const int p = model.index(info.name);
    if (p < 0) refuse("{}: tensor {} is no parameter of this model", basis.path(), info.name);
    std::vector<int64_t> expected = model.specs[p].shape;
    expected.insert(expected.begin(), info.shape.empty() ? 1 : info.shape[0]);
    if (info.shape != expected)
      refuse("{}: tensor {} has shape {}, expected {} with directions on the first axis", basis.path(), info.name,
             shape_of(info.shape), shape_of(expected));
    if (!c10::isFloatingType(info.dtype))
      refuse("{}: tensor {} is stored as {}, expected a floating type", basis.path(), info.name,
             c10::toString(info.dtype));
    if (count < 0) count = info.shape[0];
    if (info.shape[0] != count)
      refuse("{}: tensor {} holds {} directions, {} holds {}", basis.path(), info.name, info.shape[0],
             model.specs[parameters[0]].name, count);
    parameters.push_back(p);
  }
  if (count == 0) refuse("{}: holds 0 directions", basis.path());
  std::sort(parameters.begin(), parameters.end());  // the order of the model
  for (int64_t k = 0; k < count; ++k) out.names.push_back(fmt::format("direction {}", k));
  out.blocks.assign(static_cast<size_t>(count), -1);
  out.norms.assign(static_cast<size_t>(count), 0);
  out.weights.assign(static_cast<size_t>(count), 0);
  for (const int p : parameters) {
    const Tensor all = basis.view(model.specs[p].name);
    const Tensor values = all.to(wide(all.scalar_type()));
    if (!values.isfinite().all().item<bool>())
      refuse("{}: tensor {} holds values that are not finite", basis.path(), model.specs[p].name);
    for (int64_t k = 0; k < count; ++k)
      if (values[k].any().item<bool>()) add_move(out, k, p, values[k]);
  }
  for (size_t k = 0; k < out.norms.size(); ++k)
    if (out.norms[k] == 0) refuse("{}: direction {} of {} is zero", basis.path(), k, count);
  return out;
}

}  // namespace hesper
