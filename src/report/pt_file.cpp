#include "report/pt_file.h"

#include <fmt/format.h>
#include <torch/csrc/jit/serialization/pickle.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "checkpoint/torch_pickle.h"
#include "files/atomic_file.h"
#include "files/mapped_file.h"
#include "files/zip_store.h"

namespace hesper {
namespace {

constexpr uint64_t max_tensor_pickle_bytes = 4 << 10;  // one tensor needs 300 or so

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
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    throw std::runtime_error(fmt::format("{}: no such file", path.string()));
  }
  const MappedFile file(path.string());
  return parse_pt(file.bytes(), path.string());
}

at::Tensor parse_pt(std::span<const std::byte> bytes, const std::string& name) {
  const ZipStore archive(bytes, name);
  const std::string folder = archive.torch_folder();
  archive.check_byte_order(folder);
  const ZipStore::Entry& pickle = archive.entry(folder + "/data.pkl");
  if (pickle.size > max_tensor_pickle_bytes) {
    throw std::runtime_error(fmt::format("{}: holds more than one plain tensor (a pickle of {} bytes, at most {} read)",
                                         name, pickle.size, max_tensor_pickle_bytes));
  }
  TensorRecord record;
  try {
    record = read_tensor_pickle(archive.bytes(pickle));
  } catch (const std::runtime_error& what) {
    throw std::runtime_error(fmt::format("{}: {}", name, what.what()));
  }
  if (!is_writable_dtype(record.dtype)) {
    throw std::runtime_error(fmt::format("{}: holds a tensor of type {}, float16/32/64, bfloat16 or int32/64 expected",
                                         name, c10::toString(record.dtype)));
  }

  const ZipStore::Entry& entry = archive.entry(folder + "/data/" + record.storage_key);
  const auto item_size = static_cast<uint64_t>(c10::elementSize(record.dtype));
  if (static_cast<uint64_t>(record.storage_numel) > entry.size / item_size) {
    throw std::runtime_error(fmt::format("{}: a storage of {} elements of {} bytes, but only {} bytes are there", name,
                                         record.storage_numel, item_size, entry.size));
  }
  const at::Tensor storage = at::empty({record.storage_numel}, at::dtype(record.dtype));
  if (storage.numel() > 0) std::memcpy(storage.data_ptr(), archive.bytes(entry).data(), storage.nbytes());
  const at::Tensor view = storage.as_strided(record.sizes, record.strides, record.offset);
  return view.is_contiguous() && view.numel() == storage.numel() ? view : view.clone(at::MemoryFormat::Contiguous);
}

}  // namespace hesper
