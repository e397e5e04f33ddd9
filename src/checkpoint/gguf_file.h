#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoint/weight_file.h"
#include "files/gguf.h"

namespace hesper {

// A LLaMA model in one GGUF file. F32, F16 and BF16 tensors are read as they are, quantised ones dequantised to float32
// (ggml_blocks.h), each time view() asks. The rows of q and k, which llama.cpp keeps in another order, come back in
// that of Hugging Face's checkpoints. Names are the file's own (gguf_names.h translates them).
class GgufFile : public WeightFile {
 public:
  // Throws std::runtime_error, one line: file, thing, numbers.
  explicit GgufFile(const std::string& path);

  std::string format() const override { return "GGUF"; }
  // The metadata as a config.json of model_type llama. Throws std::runtime_error, by name: another architecture, a part
  // of a split file, a key of the architecture that is not known (it may change the mathematics), a value out of range.
  nlohmann::json config() const;

 private:
  at::Tensor value(size_t place) const override;
  int64_t permuted_heads(const TensorInfo& info) const;  // 0: rows are in order

  Gguf gguf_;
};

// config() from the parsed head; `rope_freqs` holds the values of rope_freqs.weight, or nothing.
nlohmann::json gguf_config(const Gguf& gguf, const std::vector<float>& rope_freqs, const std::string& file);

}  // namespace hesper
