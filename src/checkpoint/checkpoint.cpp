#include "checkpoint/checkpoint.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <future>
#include <mutex>
#include <set>
#include <stdexcept>

#include "checkpoint/gguf_file.h"
#include "checkpoint/gguf_names.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/torch_file.h"
#include "files/digest.h"
#include "files/gguf.h"
#include "files/printable.h"
#include "files/read_file.h"

namespace hesper {
namespace {

using nlohmann::json;

constexpr size_t max_json_bytes = 64 << 20;

std::string join(const std::string& folder, const std::string& name) {
  return (std::filesystem::path(folder) / name).string();
}

// The name of a shard must stay inside the folder, whatever the index says.
bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name.front() != '.' && name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

// The file each tensor of the index lives in: stored name -> shard, and the shards themselves.
std::map<std::string, std::string> read_weight_map(const std::string& path) {
  const json index = read_json_object(path);
  const auto found = index.find("weight_map");
  if (found == index.end() || !found->is_object() || found->empty()) {
    throw std::runtime_error(fmt::format("{}: \"weight_map\" is missing, empty or not an object", path));
  }
  std::map<std::string, std::string> shards;
  for (const auto& [name, shard] : found->items()) {
    if (!shard.is_string() || !is_plain_file_name(shard.get_ref<const std::string&>())) {
      throw std::runtime_error(fmt::format("{}: tensor {}: {} is not the name of a file in the folder", path,
                                           printable(name), printable(shard.dump())));
    }
    shards[name] = shard.get<std::string>();
  }
  return shards;
}

std::shared_ptr<const WeightFile> open_weight_file(const std::string& path) {
  if (path.ends_with(".bin")) return std::make_shared<TorchFile>(path);
  return std::make_shared<SafetensorsFile>(path);
}

}  // namespace

json read_json_object(const std::string& path) {
  const std::string text = read_file(path, max_json_bytes);
  json parsed = json::parse(text, nullptr, false);
  if (parsed.is_discarded()) throw std::runtime_error(fmt::format("{}: not JSON", path));
  if (!parsed.is_object()) throw std::runtime_error(fmt::format("{}: not a JSON object", path));
  return parsed;
}

std::string canonical_tensor_name(const std::string& stored) {
  if (stored == "embed_out.weight") return "lm_head.weight";
  for (const char* bare : {"decoder.", "layers.", "embed_tokens.", "norm."}) {
    if (stored.starts_with(bare)) return "model." + stored;
  }
  for (const char* bare : {"wte.", "wpe.", "h.", "ln_f."}) {
    if (stored.starts_with(bare)) return "transformer." + stored;
  }
  for (const std::string_view part : {"language_model.", "model.language_model."}) {
    if (!stored.starts_with(part)) continue;
    const std::string inner = stored.substr(part.size());
    return part.starts_with("model.") ? "model." + inner : inner;
  }
  return stored;
}

Checkpoint Checkpoint::open(const std::string& path) {
  Checkpoint checkpoint;
  checkpoint.folder_ = path;
  if (path.ends_with(".gguf") && std::filesystem::is_regular_file(path)) {
    checkpoint.open_gguf(path);
    return checkpoint;
  }
  if (!std::filesystem::is_directory(path)) {
    throw std::runtime_error(fmt::format("{}: no such model folder", path));
  }
  checkpoint.config_file_ = join(path, "config.json");
  for (const char* name : {"model.safetensors", "pytorch_model.bin"}) {
    const std::string single = join(path, name), index = single + ".index.json";
    const bool whole = std::filesystem::exists(single);
    if (!whole && !std::filesystem::exists(index)) continue;
    checkpoint.config_ = read_json_object(checkpoint.config_file_);
    if (!whole) {
      checkpoint.open_shards(index);
      return checkpoint;
    }
    checkpoint.files_.push_back(open_weight_file(single));
    for (const TensorInfo& info : checkpoint.files_[0]->tensors()) {
      checkpoint.add(0, info.name, canonical_tensor_name(info.name));
    }
    return checkpoint;
  }
  if (const std::string gguf = only_gguf_file(path); !gguf.empty()) {
    checkpoint.open_gguf(gguf);
    return checkpoint;
  }
  read_json_object(checkpoint.config_file_);  // a folder without it is no model's: say so first
  throw std::runtime_error(fmt::format(
      "{}: no weights: looked for model.safetensors and pytorch_model.bin, for .index.json of both, and for one .gguf",
      path));
}

void Checkpoint::open_gguf(const std::string& file) {
  const auto gguf = std::make_shared<GgufFile>(file);
  files_.push_back(gguf);
  config_file_ = file;
  config_ = gguf->config();
  is_gguf_ = true;
  for (const TensorInfo& info : gguf->tensors()) {
    if (info.name != "rope_freqs.weight") add(0, info.name, hugging_face_name(info.name));  // config() holds that one
  }
}

void Checkpoint::open_shards(const std::string& index) {
  const auto weight_map = read_weight_map(index);
  std::set<std::string> shards;
  for (const auto& [name, shard] : weight_map) shards.insert(shard);
  std::map<std::string, size_t> numbers;
  for (const std::string& shard : shards) {
    numbers[shard] = files_.size();
    files_.push_back(open_weight_file(join(folder_, shard)));
    for (const TensorInfo& info : files_.back()->tensors()) {
      const auto listed = weight_map.find(info.name);
      if (listed == weight_map.end() || listed->second != shard) {
        throw std::runtime_error(fmt::format("{}: tensor {} is in {}, where the index does not place it", index,
                                             printable(info.name), shard));
      }
    }
  }
  for (const auto& [name, shard] : weight_map) {
    if (!files_[numbers[shard]]->has(name)) {
      throw std::runtime_error(fmt::format("{}: tensor {} is not in {}", index, printable(name), shard));
    }
    add(numbers[shard], name, canonical_tensor_name(name));
  }
}

void Checkpoint::add(size_t file, const std::string& stored, const std::string& name) {
  const auto [it, fresh] = places_.try_emplace(name, Place{file, stored});
  if (!fresh) {
    throw std::runtime_error(fmt::format("{}: tensors {} and {} are both {}", files_[file]->path(),
                                         printable(it->second.stored), printable(stored), printable(name)));
  }
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  names.reserve(places_.size());
  for (const auto& [name, place] : places_) names.push_back(name);
  return names;
}

const Checkpoint::Place& Checkpoint::place(std::string_view name) const {
  const auto it = places_.find(name);
  if (it == places_.end()) throw std::runtime_error(fmt::format("{}: no tensor {}", folder_, printable(name)));
  return it->second;
}

const TensorInfo& Checkpoint::info(std::string_view name) const {
  const Place& found = place(name);
  return files_[found.file]->info(found.stored);
}

const std::string& Checkpoint::file(std::string_view name) const { return files_[place(name).file]->path(); }

at::Tensor Checkpoint::tensor(std::string_view name) const {
  const Place& found = place(name);
  return files_[found.file]->view(found.stored);
}

struct Checkpoint::Hashing {
  std::mutex mutex;
  std::atomic<bool> stop{false};  // the last copy of the checkpoint is gone: nobody will ask
  std::shared_future<std::string> result;

  ~Hashing() {
    stop = true;
    if (result.valid()) result.wait();
  }

  std::string hash(std::span<const std::byte> bytes) const {
    constexpr size_t piece = size_t{16} << 20;
    Sha256 digest;
    for (size_t at = 0; at < bytes.size() && !stop; at += piece)
      digest.update(bytes.subspan(at, std::min(piece, bytes.size() - at)));
    return digest.hex();
  }
  std::string hash(const std::vector<std::shared_ptr<const WeightFile>>& files) const {
    if (files.size() == 1) return hash(files[0]->bytes());
    std::string lines;
    for (const auto& file : files)
      lines += fmt::format("{}  {}\n", hash(file->bytes()), std::filesystem::path(file->path()).filename().string());
    return sha256_hex(std::as_bytes(std::span(lines)));
  }
};

std::shared_ptr<Checkpoint::Hashing> Checkpoint::no_hash() { return std::make_shared<Hashing>(); }

void Checkpoint::begin_sha256() const {
  Hashing& mine = *hashing_;
  const std::lock_guard lock(mine.mutex);
  if (!mine.result.valid())
    mine.result = std::async(std::launch::async, [&mine, files = files_] { return mine.hash(files); }).share();
}

std::string Checkpoint::sha256() const {
  begin_sha256();
  return hashing_->result.get();
}

}  // namespace hesper
