#include "report/pt_file.h"

#include <fmt/format.h>
#include <torch/csrc/jit/serialization/pickle.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "files/atomic_file.h"
#include "report/tensor_pickle.h"
#include "report/zip_store.h"

namespace hesper {
namespace {

constexpr uint64_t max_pickle_bytes =
    4 << 10;  // one tensor needs 300 or so; also bounds what a hostile one can allocate

bool is_writable_dtype(at::ScalarType dtype) {
  switch (dtype) {
    case at::kHalf:
    case at::kBFloat16:
    case at::kFloat:
    case at::kDouble:
    case at::kInt:
    case at::kLong:
      return true;
    default:
      return false;
  }
}

// The archive's folder: the FOLDER of the one entry "FOLDER/data.pkl".
std::string archive_folder(const ZipStore& archive) {
  for (const auto& [name, entry] : archive.entries()) {
    const size_t slash = name.find('/');
    if (slash != std::string::npos && name.substr(slash) == "/data.pkl") return name.substr(0, slash);
  }
  throw std::runtime_error(
      fmt::format("{}: no data.pkl in the archive, not written by torch.save", archive.path().string()));
}

}  // namespace

void write_pt(const std::filesystem::path& path, const at::Tensor& tensor) {
  if (!tensor.defined())
    throw std::invalid_argument(fmt::format("{}: the tensor to write is undefined", path.string()));
  if (tensor.layout() != at::kStrided || !is_writable_dtype(tensor.scalar_type())) {
    throw std::invalid_argument(fmt::format("{}: a tensor of type {} cannot be written as .pt", path.string(),
                                            c10::toString(tensor.scalar_type())));
  }
  at::Tensor plain = tensor.detach().cpu().contiguous();
  // A view would drag its whole storage into the file.
  if (plain.storage().nbytes() != plain.nbytes()) plain = plain.clone();
  const std::vector<char> bytes = torch::jit::pickle_save(plain);
  write_file_atomically(
      path, [&](std::ostream& out) { out.write(bytes.data(), static_cast<std::streamsize>(bytes.size())); });
}

at::Tensor read_pt(const std::filesystem::path& path) {
  ZipStore archive(path);
  const std::string folder = archive_folder(archive);
  if (const auto order = archive.entries().find(folder + "/byteorder"); order != archive.entries().end()) {
    if (archive.read_small(order->second, 16) != "little") {
      throw std::runtime_error(fmt::format("{}: not in little-endian byte order", path.string()));
    }
  }
  const ZipStore::Entry& pickle = archive.entry(folder + "/data.pkl");
  if (pickle.size > max_pickle_bytes) {
    throw std::runtime_error(fmt::format("{}: holds more than one plain tensor (a pickle of {} bytes, at most {} read)",
                                         path.string(), pickle.size, max_pickle_bytes));
  }
  TensorRecord record;
  try {
    record = read_tensor_pickle(archive.read_small(pickle, max_pickle_bytes));
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(fmt::format("{}: {}", path.string(), error.what()));
  }

  const ZipStore::Entry& entry = archive.entry(folder + "/data/" + record.storage_key);
  const auto item_size = static_cast<uint64_t>(c10::elementSize(record.dtype));
  if (static_cast<uint64_t>(record.storage_numel) > entry.size / item_size) {
    throw std::runtime_error(fmt::format("{}: a storage of {} elements of {} bytes, but only {} bytes are there",
                                         path.string(), record.storage_numel, item_size, entry.size));
  }
  const at::Tensor storage = at::empty({record.storage_numel}, at::dtype(record.dtype));
  archive.read(entry, storage.nbytes(), storage.data_ptr());
  const at::Tensor view = storage.as_strided(record.sizes, record.strides, record.offset);
  return view.is_contiguous() && view.numel() == storage.numel() ? view : view.clone(at::MemoryFormat::Contiguous);
}

}  // namespace hesper
