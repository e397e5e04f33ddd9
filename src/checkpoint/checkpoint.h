#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/weight_file.h"

namespace hesper {

// A model folder in Hugging Face layout: config.json, and model.safetensors or pytorch_model.bin, or one of their
// index.json with its shards; safetensors where both are there. Or one GGUF file, named itself or alone in its folder,
// whose metadata takes the place of config.json (gguf_file.h). Names are the full ones of the causal language model
// ("model.decoder.layers.0.fc1.weight"), also where the folder was saved from the bare model and lacks the leading
// "model." (canonical_tensor_name).
class Checkpoint {
 public:
  // Throws std::runtime_error (one line: file and what is wrong with it).
  static Checkpoint open(const std::string& path);

  const std::string& folder() const { return folder_; }            // as it was named; a GGUF file where one was
  const std::string& config_file() const { return config_file_; }  // what config() was read from
  const nlohmann::json& config() const { return config_; }         // config.json, an object
  std::string format() const { return files_[0]->format(); }       // of the weight files
  bool is_gguf() const { return is_gguf_; }                        // config() stands for the metadata of a GGUF file

  bool has(std::string_view name) const { return places_.contains(name); }
  std::vector<std::string> names() const;                // sorted
  const TensorInfo& info(std::string_view name) const;   // its stored name, offsets in its own file
  const std::string& file(std::string_view name) const;  // path of the file that holds it
  at::Tensor tensor(std::string_view name)
      const;  // dtype of its info; mapped unless it was in blocks or strided, read-only by contract

  // One weight file: what `sha256sum` prints for it. Shards: the sha256 of what `sha256sum *.safetensors` (`*.bin`)
  // prints for them in the order of their names. Reads every byte, once for all copies of a Checkpoint;
  // begin_sha256() does it on a thread of its own, which sha256() waits for.
  void begin_sha256() const;
  std::string sha256() const;

 private:
  struct Hashing;
  static std::shared_ptr<Hashing> no_hash();
  struct Place {
    size_t file;         // in files_
    std::string stored;  // the name in that file
  };
  const Place& place(std::string_view name) const;
  void add(size_t file, const std::string& stored, const std::string& name);
  void open_gguf(const std::string& file);
  void open_shards(const std::string& index);

  std::string folder_;
  std::string config_file_;
  nlohmann::json config_;
  bool is_gguf_ = false;
  std::vector<std::shared_ptr<const WeightFile>> files_;  // in the order of their names
  std::map<std::string, Place, std::less<>> places_;
  std::shared_ptr<Hashing> hashing_ = no_hash();
};

// "decoder.", "layers.", "embed_tokens." and "norm." gain the "model." that a folder saved from the bare model lacks,
// "wte.", "wpe.", "h." and "ln_f." GPT-2's "transformer."; a multimodal checkpoint's "language_model." is left out.
// GPT-NeoX's "embed_out" is "lm_head".
std::string canonical_tensor_name(const std::string& stored);

// Reads a JSON file that must hold an object. Throws std::runtime_error, one line.
nlohmann::json read_json_object(const std::string& path);

}  // namespace hesper
