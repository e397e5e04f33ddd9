#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace hesper {

// A whole regular file mapped for reading: no write permission, so writing into it is a crash, never a changed file.
class MappedFile {
 public:
  // Throws std::runtime_error, one line, when the file cannot be opened or mapped.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }

 private:
  std::string path_;
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace hesper
