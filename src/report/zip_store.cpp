#include "report/zip_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>

namespace hesper {
namespace {

constexpr uint64_t max_directory_bytes = 64 << 20;
constexpr uint32_t saturated = 0xffffffffu;  // "see the zip64 record"

// Little-endian unsigned integer of `width` bytes at `at`; the caller has checked the bounds.
uint64_t little(std::string_view data, size_t at, int width) {
  uint64_t value = 0;
  for (int i = width - 1; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(data[at + i]);
  return value;
}

}  // namespace

void ZipStore::fail(const std::string& what) const {
  throw std::runtime_error(fmt::format("{}: {}", path_.string(), what));
}

ZipStore::ZipStore(std::filesystem::path path) : path_(std::move(path)) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path_, error)) fail("no such file");
  file_size_ = std::filesystem::file_size(path_, error);
  file_.open(path_, std::ios::binary);
  if (error || !file_) fail("cannot be opened");

  // The end record is the last 22 bytes, or sits before a comment of at most 65535 bytes.
  const uint64_t tail_size = std::min<uint64_t>(file_size_, 22 + 65535);
  const std::string tail = bytes(file_size_ - tail_size, tail_size);
  const size_t end = tail.rfind("PK\5\6");
  if (end == std::string::npos || tail.size() - end < 22) fail("not a zip archive (or cut short): no end record");
  uint64_t count = little(tail, end + 10, 2);
  uint64_t size = little(tail, end + 12, 4);
  uint64_t offset = little(tail, end + 16, 4);
  if (count == 0xffff || size == saturated || offset == saturated) {
    if (end < 20 || tail.compare(end - 20, 4, "PK\6\7") != 0) fail("zip64 end locator missing");
    const std::string record = bytes(little(tail, end - 20 + 8, 8), 56);
    if (record.compare(0, 4, "PK\6\6") != 0) fail("zip64 end record missing");
    count = little(record, 32, 8);
    size = little(record, 40, 8);
    offset = little(record, 48, 8);
  }
  read_directory(offset, size, count);
}

void ZipStore::read_directory(uint64_t offset, uint64_t size, uint64_t count) {
  if (size > max_directory_bytes) fail(fmt::format("zip directory of {} bytes is too large", size));
  const std::string directory = bytes(offset, size);
  size_t at = 0;
  for (uint64_t i = 0; i < count; ++i) {
    if (directory.size() - at < 46 || directory.compare(at, 4, "PK\1\2") != 0) {
      fail(fmt::format("zip directory is broken at entry {} of {}", i, count));
    }
    const uint64_t flags = little(directory, at + 8, 2);
    const uint64_t method = little(directory, at + 10, 2);
    uint64_t packed = little(directory, at + 20, 4);
    uint64_t unpacked = little(directory, at + 24, 4);
    const size_t name_size = little(directory, at + 28, 2);
    const size_t extra_size = little(directory, at + 30, 2);
    const size_t comment_size = little(directory, at + 32, 2);
    uint64_t header = little(directory, at + 42, 4);
    if (directory.size() - at - 46 < name_size + extra_size + comment_size) fail("zip directory is cut short");
    const std::string name = directory.substr(at + 46, name_size);

    // The zip64 extra field holds, in this order, those of the three that are saturated.
    const std::string_view extra = std::string_view(directory).substr(at + 46 + name_size, extra_size);
    for (size_t field = 0; field + 4 <= extra.size();) {
      const uint64_t id = little(extra, field, 2);
      const size_t field_size = little(extra, field + 2, 2);
      if (extra.size() - field - 4 < field_size) fail(fmt::format("zip entry '{}': broken extra field", name));
      if (id == 1) {
        size_t used = 0;
        for (uint64_t* value : {&unpacked, &packed, &header}) {
          if (*value != saturated) continue;
          if (field_size - used < 8) fail(fmt::format("zip entry '{}': broken zip64 field", name));
          *value = little(extra, field + 4 + used, 8);
          used += 8;
        }
      }
      field += 4 + field_size;
    }
    if (method != 0 || (flags & 1) != 0 || packed != unpacked) {
      fail(fmt::format("zip entry '{}' is compressed or encrypted; torch.save stores plainly", name));
    }

    const std::string local = bytes(header, 30);
    if (local.compare(0, 4, "PK\3\4") != 0) fail(fmt::format("zip entry '{}' has no local header", name));
    const uint64_t start = header + 30 + little(local, 26, 2) + little(local, 28, 2);  // < file size + 2^17
    if (start > file_size_ || unpacked > file_size_ - start) {
      fail(fmt::format("zip entry '{}' of {} bytes runs past the end of the file ({} bytes)", name, unpacked,
                       file_size_));
    }
    if (!entries_.emplace(name, Entry{start, unpacked}).second) fail(fmt::format("zip entry '{}' occurs twice", name));
    at += 46 + name_size + extra_size + comment_size;
  }
}

const ZipStore::Entry& ZipStore::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) fail(fmt::format("no entry '{}' in the archive", name));
  return found->second;
}

void ZipStore::read(const Entry& entry, uint64_t size, void* out) {
  if (size > entry.size) fail(fmt::format("{} bytes asked of an entry of {}", size, entry.size));
  file_.clear();
  file_.seekg(static_cast<std::streamoff>(entry.offset));
  file_.read(static_cast<char*>(out), static_cast<std::streamsize>(size));
  if (!file_) fail(fmt::format("read failed at byte {}", entry.offset));
}

std::string ZipStore::read_small(const Entry& entry, uint64_t limit) {
  if (entry.size > limit) fail(fmt::format("entry of {} bytes where at most {} are expected", entry.size, limit));
  return bytes(entry.offset, entry.size);
}

std::string ZipStore::bytes(uint64_t offset, uint64_t size) {
  if (offset > file_size_ || size > file_size_ - offset) {
    fail(fmt::format("cut short: {} bytes at {} of a file of {} bytes", size, offset, file_size_));
  }
  std::string data(size, '\0');
  read({offset, size}, size, data.data());
  return data;
}

}  // namespace hesper
