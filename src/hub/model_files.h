#pragma once
// Which files of a repository a model is read from: the ones that Checkpoint::open and load_tokenizer would take from a
// folder that held all of them, and no others.
#include <functional>
#include <string>
#include <vector>

#include "hub/repository.h"

namespace hesper {

/// tokenizer.json, else vocab.json and merges.txt, else tokenizer.model, with tokenizer_config.json; none: empty.
std::vector<std::string> tokenizer_files(const RepositoryListing& listing);

/// The first that is there of model.safetensors, its index.json, pytorch_model.bin, its index.json; else the one .gguf.
/// Throws std::runtime_error, "WHERE: ..", when there is none of them.
std::string weights_file(const RepositoryListing& listing, const std::string& where);

/// The shards that an index.json (its text) names, sorted. Throws std::runtime_error when the text is no index or names
/// what is not listed.
std::vector<std::string> shards_of(const std::string& index, const RepositoryListing& listing,
                                   const std::string& where);

}  // namespace hesper
