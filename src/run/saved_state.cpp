#include "run/saved_state.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "checkpoint/safetensors.h"
#include "files/digest.h"
#include "files/mapped_file.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Names of Before::tensors in the file.
constexpr std::string_view kBefore = "before/";
constexpr const char* kFormat = "hesper snapshot 3";
// Comparing and writing JSON recurse: deeper is refused. What a run writes is less than 8 deep.
constexpr int max_depth = 32;

std::runtime_error damaged(const std::string& name, const std::string& what) {
  return std::runtime_error(fmt::format("{}: not a snapshot that can be used ({})", name, what));
}

/// Over the metadata and every tensor's name, shape and bytes, by name.
std::string checksum(const std::string& metadata, NamedTensors tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  Sha256 digest;
  const auto add = [&](const std::string& text) { digest.update(std::as_bytes(std::span(text))); };
  add(metadata);
  for (const auto& [name, tensor] : tensors) {
    add(fmt::format("\n{} [{}]\n", name, fmt::join(tensor.sizes(), ",")));
    const Tensor values = tensor.contiguous();
    digest.update(std::as_bytes(std::span(values.const_data_ptr<double>(), static_cast<size_t>(values.numel()))));
  }
  return digest.hex();
}

Tensor copy_of(const TensorInfo& info, std::span<const std::byte> bytes) {
  Tensor values = at::empty(info.shape, at::kDouble);
  if (values.numel() > 0) std::memcpy(values.mutable_data_ptr(), bytes.data() + info.begin, values.nbytes());
  return values;
}

int64_t count_of(const json& said, const char* key) {
  const json& value = said.at(key);
  constexpr uint64_t largest = std::numeric_limits<int64_t>::max();
  if (!value.is_number_unsigned() || value.get<uint64_t>() > largest)
    throw std::out_of_range(fmt::format("{} is no count", key));
  return value.get<int64_t>();
}

}  // namespace

const Tensor& RunState::tensor(const std::string& name, at::IntArrayRef shape) const {
  for (const auto& [own, value] : tensors)
    if (own == name && value.sizes() == shape) return value;
  throw std::runtime_error(fmt::format("the snapshot has no {} of shape [{}]", name, fmt::join(shape, ", ")));
}

SavedState state_of(const std::string& text, const NamedTensors& tensors, const std::string& name) {
  try {
    const json said = json::parse(text, [&](int depth, json::parse_event_t, json&) {
      if (depth > max_depth) throw damaged(name, fmt::format("its state is nested more than {} deep", max_depth));
      return true;
    });
    SavedState out{said.at("configuration"), said.at("origin"), {}, {said.at("before"), {}}};
    RunState& state = out.state;
    state.plan = said.at("plan");
    if (!out.configuration.is_object() || !state.plan.is_object())
      throw std::out_of_range("its configuration or plan is no object");
    state.stage = said.at("stage"), state.seconds = said.at("seconds").get<double>();
    if (!(state.seconds >= 0) || !std::isfinite(state.seconds)) throw std::out_of_range("seconds is no time");
    state.first = count_of(said, "first"), state.end = count_of(said, "end"), state.steps = count_of(said, "steps");
    if (state.end < state.first) throw std::out_of_range("its items end before they begin");
    for (const auto& [tensor_name, tensor] : tensors) {
      const bool before = tensor_name.starts_with(kBefore);
      (before ? out.before.tensors : state.tensors)
          .emplace_back(before ? tensor_name.substr(kBefore.size()) : tensor_name, tensor);
    }
    return out;
  } catch (const json::exception&) {
    throw damaged(name, "its state is not readable");
  } catch (const std::out_of_range& what) {
    throw damaged(name, what.what());
  }
}

SavedState parse_state(std::span<const std::byte> bytes, const std::string& name) {
  const SafetensorsHeader header = parse_safetensors_header(bytes, name);
  const auto entry = [&](const char* key) {
    const auto found = header.metadata.find(key);
    return found == header.metadata.end() ? std::string() : found->second;
  };
  if (entry("format") != kFormat) throw damaged(name, fmt::format("its format is {:.40}", printable(entry("format"))));
  NamedTensors tensors;
  for (const TensorInfo& info : header.tensors) {
    if (info.dtype != at::kDouble) throw damaged(name, fmt::format("tensor {} is not fp64", printable(info.name)));
    tensors.emplace_back(info.name, copy_of(info, bytes));
  }
  if (checksum(entry("state"), tensors) != entry("sha256")) throw damaged(name, "its checksum differs");
  return state_of(entry("state"), tensors, name);
}

SavedState read_state(const fs::path& path) {
  const MappedFile file(path.string());
  return parse_state(file.bytes(), path.string());
}

void write_state(const fs::path& path, const SavedState& saved) {
  const RunState& state = saved.state;
  const std::string said = json{
      {"configuration", saved.configuration},
      {"origin", saved.origin},
      {"plan", state.plan},
      {"stage", state.stage},
      {"before", saved.before.note},
      {"seconds", state.seconds},
      {"first", state.first},
      {"end", state.end},
      {"steps", state.steps}}.dump();
  NamedTensors tensors;
  for (const auto& [name, tensor] : state.tensors)
    tensors.emplace_back(name, tensor.to(at::kCPU, at::kDouble).contiguous());
  for (const auto& [name, tensor] : saved.before.tensors)
    tensors.emplace_back(fmt::format("{}{}", kBefore, name), tensor);
  write_safetensors(path.string(), tensors,
                    {{"format", kFormat}, {"state", said}, {"sha256", checksum(said, tensors)}});
}

}  // namespace hesper
