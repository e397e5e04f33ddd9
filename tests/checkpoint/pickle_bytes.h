#pragma once
// Pickles and archives of torch.save by hand, byte by byte.
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hesper::pickle_bytes {

inline std::string little(uint64_t value, int width) {
  std::string bytes;
  for (int i = 0; i < width; ++i) bytes += static_cast<char>(value >> (8 * i) & 255);
  return bytes;
}
inline std::string integer(int64_t value) {  // LONG1
  return std::string("\x8a\x08") + little(static_cast<uint64_t>(value), 8);
}
inline std::string text(std::string_view value) {
  return std::string("X") + little(value.size(), 4) + std::string(value);
}
inline std::string global(const std::string& module, const std::string& name) {
  return std::string("c") + module + "\n" + name + "\n";
}
inline std::string tuple(const std::vector<int64_t>& values) {
  std::string bytes = "(";
  for (const int64_t value : values) bytes += integer(value);
  return bytes + "t";
}
// ('storage', torch.TYPE, key, 'cpu', numel) -> BINPERSID; `more` is the sixth field of a legacy stream.
inline std::string storage(const std::string& key, int64_t numel, const std::string& type = "FloatStorage",
                           const std::string& more = "") {
  return std::string("(") + text("storage") + global("torch", type) + text(key) + text("cpu") + integer(numel) + more +
         "tQ";
}
// A tensor over a storage, as _rebuild_tensor_v2 makes it.
inline std::string tensor(const std::string& storage, int64_t offset, const std::vector<int64_t>& sizes,
                          const std::vector<int64_t>& strides) {
  return global("torch._utils", "_rebuild_tensor_v2") + "(" + storage + integer(offset) + tuple(sizes) +
         tuple(strides) + "\x89" + global("collections", "OrderedDict") + ")RtR";
}
using Entries = std::vector<std::pair<std::string, std::string>>;  // name, pickled value
inline std::string dict(const Entries& entries) {
  std::string bytes = "}(";
  for (const auto& [name, value] : entries) bytes += text(name) + value;
  return bytes + "u";
}
inline std::string pickle(const std::string& value) { return std::string("\x80\x02") + value + "."; }

// A legacy stream of these storages (key, elements as bytes, their number) behind a state dict.
struct Stored {
  std::string key, bytes;
  uint64_t numel;
};
inline std::string stream(const Entries& entries, const std::vector<Stored>& storages, bool little_endian = true,
                          int64_t version = 1001) {
  std::string bytes = pickle(std::string("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"));
  bytes += pickle(integer(version));
  bytes += pickle(dict({{"protocol_version", integer(version)}, {"little_endian", little_endian ? "\x88" : "\x89"}}));
  bytes += pickle(dict(entries));
  std::string keys = "](";
  for (const Stored& stored : storages) keys += text(stored.key);
  bytes += pickle(keys + "e");
  for (const Stored& stored : storages) bytes += little(stored.numel, 8) + stored.bytes;
  return bytes;
}

// A zip archive that stores these entries (name, bytes); `method` is 8 for one that claims to be deflated.
inline std::string archive(const Entries& entries, int method = 0) {
  std::string bytes, directory;
  for (const auto& [name, data] : entries) {
    const std::string sizes = little(0, 4) + little(data.size(), 4) + little(data.size(), 4);  // checksum, both sizes
    const std::string fields = little(0, 2) + little(static_cast<uint64_t>(method), 2) + little(0, 4) + sizes +
                               little(name.size(), 2) + little(0, 2);
    directory += std::string("PK\1\2") + little(20, 2) + little(20, 2) + fields + little(0, 2) + little(0, 2) +
                 little(0, 2) + little(0, 4) + little(bytes.size(), 4) + name;
    bytes += std::string("PK\3\4") + little(20, 2) + fields + name + data;
  }
  const std::string end = std::string("PK\5\6") + little(0, 4) + little(entries.size(), 2) + little(entries.size(), 2) +
                          little(directory.size(), 4) + little(bytes.size(), 4) + little(0, 2);
  return bytes + directory + end;
}

inline std::string floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

}  // namespace hesper::pickle_bytes
