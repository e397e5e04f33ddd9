#include "hub/model_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "files/printable.h"

namespace hesper {

std::vector<std::string> tokenizer_files(const RepositoryListing& listing) {
  std::vector<std::string> files;
  if (listing.has("tokenizer.json")) {
    files = {"tokenizer.json"};
  } else if (listing.has("vocab.json") && listing.has("merges.txt")) {
    files = {"vocab.json", "merges.txt"};
  } else if (listing.has("tokenizer.model")) {
    files = {"tokenizer.model"};
  }
  if (!files.empty() && listing.has("tokenizer_config.json")) files.emplace_back("tokenizer_config.json");
  return files;
}

std::string weights_file(const RepositoryListing& listing, const std::string& where) {
  for (const char* name :
       {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (listing.has(name)) return name;
  }
  std::vector<std::string> gguf;
  std::copy_if(listing.files.begin(), listing.files.end(), std::back_inserter(gguf),
               [](const std::string& file) { return file.ends_with(".gguf") && file.find('/') == std::string::npos; });
  if (gguf.size() == 1) return gguf[0];
  if (gguf.size() > 1) {
    throw std::runtime_error(
        fmt::format("{}: {} GGUF files and no other weights: fetch one of them and name it", where, gguf.size()));
  }
  throw std::runtime_error(fmt::format(
      "{}: no weights: looked for model.safetensors and pytorch_model.bin, for .index.json of both, and for one .gguf",
      where));
}

std::vector<std::string> shards_of(const std::string& index, const RepositoryListing& listing,
                                   const std::string& where) {
  const nlohmann::json json = nlohmann::json::parse(index, nullptr, false);
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object() || map->empty()) {
    throw std::runtime_error(fmt::format("{}: \"weight_map\" is missing, empty or not an object", where));
  }
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string() || !listing.has(shard.get_ref<const std::string&>())) {
      throw std::runtime_error(
          fmt::format("{}: tensor {} is in {}, which the repository does not hold", where, printable(tensor),
                      printable(shard.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace))));
    }
    shards.insert(shard.get<std::string>());
  }
  return {shards.begin(), shards.end()};
}

}  // namespace hesper
