#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace hesper {

/// A GGUF file of version 3 with float32 tensors, as llama.cpp's tools write theirs: metadata and tensors in the order
/// of the calls, data aligned to 32 bytes.
class GgufWriter {
 public:
  void add_text(std::string_view key, std::string_view value);
  void add_number(std::string_view key, uint32_t value);
  void add_texts(std::string_view key, const std::vector<std::string>& values);
  /// Shape (values); names are unique.
  void add_tensor(std::string_view name, std::vector<float> values);

  /// Throws std::runtime_error when the file cannot be written; whole or not at all.
  void write(const std::filesystem::path& path) const;

 private:
  struct Tensor {
    std::string name;
    std::vector<float> values;
  };
  std::string metadata_;
  uint64_t keys_ = 0;
  std::vector<Tensor> tensors_;
};

}  // namespace hesper
