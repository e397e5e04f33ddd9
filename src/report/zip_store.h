#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

namespace hesper {

// Reader of zip archives whose entries are stored without compression (what torch.save writes), zip64 included.
// Every offset and size is checked against the file before it is used; checksums are not (PyTorch may leave them out).
class ZipStore {
 public:
  struct Entry {
    uint64_t offset = 0;  // of the first byte, from the start of the file
    uint64_t size = 0;    // bytes
  };

  // Throws std::runtime_error when the file cannot be read or is no such archive.
  explicit ZipStore(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  const std::map<std::string, Entry>& entries() const { return entries_; }
  // Throws std::runtime_error for a name that is not there.
  const Entry& entry(const std::string& name) const;
  // Reads the first `size` bytes of an entry into `out`. Throws std::runtime_error when the entry has fewer.
  void read(const Entry& entry, uint64_t size, void* out);
  // A whole small entry; throws std::runtime_error when it is larger than `limit` bytes.
  std::string read_small(const Entry& entry, uint64_t limit);

 private:
  [[noreturn]] void fail(const std::string& what) const;
  std::string bytes(uint64_t offset, uint64_t size);
  void read_directory(uint64_t offset, uint64_t size, uint64_t count);

  std::filesystem::path path_;
  std::ifstream file_;
  uint64_t file_size_ = 0;
  std::map<std::string, Entry> entries_;
};

}  // namespace hesper
