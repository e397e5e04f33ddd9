#include "files/gguf_writer.h"

#include <ostream>
#include <utility>

#include "files/atomic_file.h"

namespace hesper {
namespace {

constexpr uint64_t alignment = 32;  // the format's default
enum ValueType : uint32_t { uint32_value = 4, string_value = 8, array_value = 9 };
constexpr uint32_t float32_tensor = 0;

template <typename Number>
std::string little(Number value) {
  std::string bytes;
  for (size_t i = 0; i < sizeof value; ++i) bytes += static_cast<char>(value >> (8 * i) & 255);
  return bytes;
}

std::string counted(std::string_view text) { return little(uint64_t{text.size()}).append(text); }

uint64_t aligned(uint64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

}  // namespace

void GgufWriter::add_text(std::string_view key, std::string_view value) {
  metadata_ += counted(key) + little(uint32_t{string_value}) + counted(value);
  ++keys_;
}

void GgufWriter::add_number(std::string_view key, uint32_t value) {
  metadata_ += counted(key) + little(uint32_t{uint32_value}) + little(value);
  ++keys_;
}

void GgufWriter::add_texts(std::string_view key, const std::vector<std::string>& values) {
  metadata_ +=
      counted(key) + little(uint32_t{array_value}) + little(uint32_t{string_value}) + little(uint64_t{values.size()});
  for (const std::string& value : values) metadata_ += counted(value);
  ++keys_;
}

void GgufWriter::add_tensor(std::string_view name, std::vector<float> values) {
  tensors_.push_back({std::string(name), std::move(values)});
}

// "GGUF", version, counts; metadata; of each tensor name, dimensions, type and offset from the first; padding; data.
void GgufWriter::write(const std::filesystem::path& path) const {
  std::string head = "GGUF" + little(uint32_t{3}) + little(uint64_t{tensors_.size()}) + little(keys_) + metadata_;
  uint64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    head += counted(tensor.name) + little(uint32_t{1}) + little(uint64_t{tensor.values.size()}) +
            little(float32_tensor) + little(offset);
    offset += aligned(tensor.values.size() * sizeof(float));
  }
  head.resize(aligned(head.size()), '\0');
  write_file_atomically(path, [&](std::ostream& out) {
    out << head;
    for (const Tensor& tensor : tensors_) {
      const uint64_t bytes = tensor.values.size() * sizeof(float);
      out.write(reinterpret_cast<const char*>(tensor.values.data()), static_cast<std::streamsize>(bytes));
      out << std::string(aligned(bytes) - bytes, '\0');
    }
  });
}

}  // namespace hesper
