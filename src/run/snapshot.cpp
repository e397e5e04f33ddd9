#include "run/snapshot.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <stdexcept>

#include "checkpoint/safetensors.h"
#include "run/result_files.h"
#include "text/sha256.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Names of Before::tensors in the file.
constexpr std::string_view kBefore = "before/";
constexpr const char* kFormat = "hesper snapshot 3";

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

/// Temporaries of writers that were killed.
void remove_temporaries(const fs::path& file) {
  std::error_code error;
  const fs::path folder = file.parent_path().empty() ? fs::path(".") : file.parent_path();
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    if (entry->path().filename().string().starts_with(file.filename().string() + ".tmp-")) {
      std::error_code ignored;
      fs::remove(entry->path(), ignored);
    }
}

}  // namespace

const Tensor& RunState::tensor(const std::string& name, at::IntArrayRef shape) const {
  for (const auto& [own, value] : tensors)
    if (own == name && value.sizes() == shape) return value;
  throw std::runtime_error(fmt::format("the snapshot has no {} of shape [{}]", name, fmt::join(shape, ", ")));
}

Snapshots::Snapshots(fs::path file, Configuration configuration, double every, OnTrouble on_trouble)
    : file_(std::move(file)),
      make_configuration_(std::move(configuration)),
      every_(every),
      on_trouble_(std::move(on_trouble)) {}

const json& Snapshots::configuration() {
  if (!configuration_) {
    configuration_ = make_configuration_();
    (*configuration_)["version"] = HESPER_VERSION;
  }
  return *configuration_;
}

SavedState read_state(const fs::path& path) {
  const auto damaged = [&](const std::string& what) {
    return std::runtime_error(fmt::format("{}: not a snapshot that can be used ({})", path.string(), what));
  };
  const SafetensorsFile file(path.string());
  const auto& metadata = file.metadata();
  const auto entry = [&](const char* key) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? std::string() : found->second;
  };
  if (entry("format") != kFormat) throw damaged(fmt::format("its format is \"{:.40}\"", entry("format")));
  NamedTensors tensors;
  for (const TensorInfo& info : file.tensors()) {
    if (info.dtype != at::kDouble) throw damaged(fmt::format("tensor {} is not fp64", info.name));
    tensors.emplace_back(info.name, file.view(info.name).clone());
  }
  if (checksum(entry("state"), tensors) != entry("sha256")) throw damaged("its checksum differs");
  try {
    const json said = json::parse(entry("state"));
    SavedState out{said.at("configuration"), said.at("origin"), {}, {said.at("before"), {}}};
    out.state.plan = said.at("plan"), out.state.stage = said.at("stage"), out.state.seconds = said.at("seconds");
    out.state.first = said.at("first"), out.state.end = said.at("end"), out.state.steps = said.at("steps");
    for (auto& [name, tensor] : tensors) {
      const bool before = name.starts_with(kBefore);
      (before ? out.before.tensors : out.state.tensors)
          .emplace_back(before ? name.substr(kBefore.size()) : name, tensor);
    }
    return out;
  } catch (const json::exception&) {
    throw damaged("its state is not readable");
  }
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

std::optional<RunState> Snapshots::load() {
  remove_temporaries(file_);
  std::error_code error;
  if (!fs::exists(file_, error)) return std::nullopt;
  SavedState saved = read_state(file_);
  if (const std::string difference = first_difference(saved.configuration, configuration()); !difference.empty())
    throw std::invalid_argument(
        fmt::format("{}: snapshot of a run with {}; --overwrite begins anew", file_.string(), difference));
  before = std::move(saved.before);
  return std::move(saved.state);
}

bool Snapshots::save(const RunState& state) {
  last_ = Clock::now();
  try {
    write_state(file_, {configuration(), origin, state, before});
  } catch (const std::runtime_error& error) {
    if (on_trouble_) on_trouble_(error.what());
    return false;
  }
  return true;
}

void Snapshots::remove() {
  std::error_code ignored;
  fs::remove(file_, ignored);
  remove_temporaries(file_);
}

}  // namespace hesper
