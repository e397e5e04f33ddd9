#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

namespace hesper {

// The entries of a zip archive held in memory that stores them without compression (what torch.save writes), zip64
// included. Every offset and size is checked before it is used; checksums are not (PyTorch may leave them out).
class ZipStore {
 public:
  struct Entry {
    uint64_t offset = 0;  // of the first byte, from the start of the file; [offset, offset + size) is inside
    uint64_t size = 0;    // bytes
  };

  // `file` names the archive in errors; the bytes must outlive the store. Throws std::runtime_error when they are no
  // such archive.
  ZipStore(std::span<const std::byte> bytes, std::string file);

  const std::map<std::string, Entry>& entries() const { return entries_; }
  // Throws std::runtime_error for a name that is not there.
  const Entry& entry(const std::string& name) const;
  std::string_view bytes(const Entry& entry) const { return file_.substr(entry.offset, entry.size); }
  // The FOLDER of the entry "FOLDER/data.pkl" that torch.save writes. Throws std::runtime_error when there is none.
  std::string torch_folder() const;
  // Refuses an archive whose FOLDER/byteorder says something else than little-endian.
  void check_byte_order(const std::string& folder) const;

 private:
  [[noreturn]] void fail(const std::string& what) const;
  std::string_view at(uint64_t offset, uint64_t size) const;  // checked
  void read_directory(uint64_t offset, uint64_t size, uint64_t count);

  std::string name_;
  std::string_view file_;
  std::map<std::string, Entry> entries_;
};

}  // namespace hesper
