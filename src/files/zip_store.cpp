#include "files/zip_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "files/printable.h"

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

void ZipStore::fail(const std::string& what) const { throw std::runtime_error(fmt::format("{}: {}", name_, what)); }

ZipStore::ZipStore(std::span<const std::byte> bytes, std::string file)
    : name_(std::move(file)), file_(reinterpret_cast<const char*>(bytes.data()), bytes.size()) {
  // The end record is the last 22 bytes, or sits before a comment of at most 65535 bytes.
  const std::string_view tail = file_.substr(file_.size() - std::min<size_t>(file_.size(), 22 + 65535));
  const size_t end = tail.rfind("PK\5\6");
  if (end == std::string_view::npos || tail.size() - end < 22) fail("not a zip archive (or cut short): no end record");
  uint64_t count = little(tail, end + 10, 2);
  uint64_t size = little(tail, end + 12, 4);
  uint64_t offset = little(tail, end + 16, 4);
  if (count == 0xffff || size == saturated || offset == saturated) {
    if (end < 20 || tail.compare(end - 20, 4, "PK\6\7") != 0) fail("zip64 end locator missing");
    const std::string_view record = at(little(tail, end - 20 + 8, 8), 56);
    if (record.compare(0, 4, "PK\6\6") != 0) fail("zip64 end record missing");
    count = little(record, 32, 8);
    size = little(record, 40, 8);
    offset = little(record, 48, 8);
  }
  read_directory(offset, size, count);
}

void ZipStore::read_directory(uint64_t offset, uint64_t size, uint64_t count) {
  if (size > max_directory_bytes) fail(fmt::format("zip directory of {} bytes is too large", size));
  const std::string_view directory = at(offset, size);
  size_t place = 0;
  for (uint64_t i = 0; i < count; ++i) {
    if (directory.size() - place < 46 || directory.compare(place, 4, "PK\1\2") != 0) {
      fail(fmt::format("zip directory is broken at entry {} of {}", i, count));
    }
    const uint64_t flags = little(directory, place + 8, 2);
    const uint64_t method = little(directory, place + 10, 2);
    uint64_t packed = little(directory, place + 20, 4);
    uint64_t unpacked = little(directory, place + 24, 4);
    const size_t name_size = little(directory, place + 28, 2);
    const size_t extra_size = little(directory, place + 30, 2);
    const size_t comment_size = little(directory, place + 32, 2);
    uint64_t header = little(directory, place + 42, 4);
    if (directory.size() - place - 46 < name_size + extra_size + comment_size) fail("zip directory is cut short");
    const std::string name(directory.substr(place + 46, name_size));

    // The zip64 extra field holds, in this order, those of the three that are saturated.
    const std::string_view extra = directory.substr(place + 46 + name_size, extra_size);
    for (size_t field = 0; field + 4 <= extra.size();) {
      const uint64_t id = little(extra, field, 2);
      const size_t field_size = little(extra, field + 2, 2);
      if (extra.size() - field - 4 < field_size) fail(fmt::format("zip entry {}: broken extra field", printable(name)));
      if (id == 1) {
        size_t used = 0;
        for (uint64_t* value : {&unpacked, &packed, &header}) {
          if (*value != saturated) continue;
          if (field_size - used < 8) fail(fmt::format("zip entry {}: broken zip64 field", printable(name)));
          *value = little(extra, field + 4 + used, 8);
          used += 8;
        }
      }
      field += 4 + field_size;
    }
    if (method != 0 || (flags & 1) != 0 || packed != unpacked) {
      fail(fmt::format("zip entry {} is compressed or encrypted; torch.save stores plainly", printable(name)));
    }

    const std::string_view local = at(header, 30);
    if (local.compare(0, 4, "PK\3\4") != 0) fail(fmt::format("zip entry {} has no local header", printable(name)));
    const uint64_t start = header + 30 + little(local, 26, 2) + little(local, 28, 2);  // < file size + 2^17
    if (start > file_.size() || unpacked > file_.size() - start) {
      fail(fmt::format("zip entry {} of {} bytes runs past the end of the file ({} bytes)", printable(name), unpacked,
                       file_.size()));
    }
    if (!entries_.emplace(name, Entry{start, unpacked}).second)
      fail(fmt::format("zip entry {} occurs twice", printable(name)));
    place += 46 + name_size + extra_size + comment_size;
  }
}

const ZipStore::Entry& ZipStore::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) fail(fmt::format("no entry {} in the archive", printable(name)));
  return found->second;
}

std::string ZipStore::torch_folder() const {
  for (const auto& [name, entry] : entries_) {
    const size_t slash = name.find('/');
    if (slash != std::string::npos && name.substr(slash) == "/data.pkl") return name.substr(0, slash);
  }
  fail("no data.pkl in the archive, not written by torch.save");
}

void ZipStore::check_byte_order(const std::string& folder) const {
  const auto order = entries_.find(folder + "/byteorder");
  if (order != entries_.end() && bytes(order->second) != "little") {
    fail(fmt::format("byte order {}, only \"little\" is read", printable(bytes(order->second))));
  }
}

std::string_view ZipStore::at(uint64_t offset, uint64_t size) const {
  if (offset > file_.size() || size > file_.size() - offset) {
    fail(fmt::format("cut short: {} bytes at {} of a file of {} bytes", size, offset, file_.size()));
  }
  return file_.substr(offset, size);
}

}  // namespace hesper
