#include "checkpoint/torch_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "files/printable.h"
#include "files/zip_store.h"

namespace hesper {
namespace {

template <typename Read>
auto named(const std::string& file, const Read& read) {
  try {
    return read();
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(fmt::format("{}: {}", file, error.what()));
  }
}

// `begin` is where the record's storage starts in the file; every element lies inside the storage (torch_pickle.h).
void add(TorchTensors& out, std::string name, const TensorRecord& record, uint64_t begin) {
  const uint64_t item = c10::elementSize(record.dtype);
  int64_t farthest = 0;
  bool empty = false;
  for (size_t i = 0; i < record.sizes.size(); ++i) {
    empty |= record.sizes[i] == 0;
    if (!empty) farthest += (record.sizes[i] - 1) * record.strides[i];
  }
  const uint64_t first = begin + (empty ? 0 : static_cast<uint64_t>(record.offset) * item);
  const uint64_t end = empty ? first : first + static_cast<uint64_t>(farthest + 1) * item;
  out.tensors.push_back({std::move(name), record.dtype, record.sizes, first, end});
  out.strides.push_back(record.strides);
}

TorchTensors parse_archive(std::span<const std::byte> bytes, const std::string& file) {
  const ZipStore archive(bytes, file);
  const std::string folder = archive.torch_folder();
  archive.check_byte_order(folder);
  const ZipStore::Entry& pickle = archive.entry(folder + "/data.pkl");
  if (pickle.size > max_pickle_bytes) {
    throw std::runtime_error(
        fmt::format("{}: a pickle of {} bytes, at most {} are read", file, pickle.size, max_pickle_bytes));
  }
  TorchTensors out;
  for (auto& [name, record] : named(file, [&] { return read_state_dict_pickle(archive.bytes(pickle)); })) {
    const ZipStore::Entry& storage = archive.entry(folder + "/data/" + record.storage_key);
    const uint64_t item = c10::elementSize(record.dtype);
    if (static_cast<uint64_t>(record.storage_numel) > storage.size / item) {
      throw std::runtime_error(
          fmt::format("{}: tensor {}: a storage of {} elements of {} bytes, but {} bytes are there", file,
                      printable(name), record.storage_numel, item, storage.size));
    }
    add(out, std::move(name), record, storage.offset);
  }
  return out;
}

TorchTensors parse_stream(std::string_view bytes, const std::string& file) {
  LegacyStream stream = named(file, [&] { return read_legacy_stream(bytes); });
  TorchTensors out;
  for (auto& [name, record] : stream.tensors) {
    add(out, std::move(name), record, stream.storages.at(record.storage_key));
  }
  return out;
}

}  // namespace

TorchTensors parse_torch_file(std::span<const std::byte> bytes, const std::string& file) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("PK\3\4")) return parse_archive(bytes, file);
  if (is_legacy_stream(text)) return parse_stream(text, file);
  throw std::runtime_error(fmt::format("{}: {} bytes that torch.save did not write: neither a zip archive nor a stream",
                                       file, bytes.size()));
}

TorchFile::TorchFile(const std::string& path) : WeightFile(path) {
  TorchTensors parsed = parse_torch_file(bytes(), path);
  strides_ = std::move(parsed.strides);
  set_tensors(std::move(parsed.tensors));
}

at::Tensor TorchFile::value(size_t place) const {
  const TensorInfo& info = tensors()[place];
  return mapped(info.begin, info.end, info.dtype, info.shape, strides_[place]);
}

}  // namespace hesper
