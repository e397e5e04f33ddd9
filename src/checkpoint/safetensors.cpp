#include "checkpoint/safetensors.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "files/atomic_file.h"

namespace hesper {

struct SafetensorsFile::Mapping {
  explicit Mapping(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) throw std::runtime_error(fmt::format("{}: cannot open: {}", path, std::strerror(errno)));
    struct stat status {};
    const bool known = ::fstat(fd, &status) == 0;
    if (known && S_ISREG(status.st_mode)) {
      size = static_cast<size_t>(status.st_size);
      if (size > 0) data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    }
    const int error = errno;
    ::close(fd);
    if (!known || data == MAP_FAILED) {
      throw std::runtime_error(fmt::format("{}: cannot map: {}", path, std::strerror(error)));
    }
    if (!S_ISREG(status.st_mode)) throw std::runtime_error(fmt::format("{}: not a regular file", path));
  }
  ~Mapping() {
    if (data != nullptr) ::munmap(data, size);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  void* data = nullptr;
  size_t size = 0;
};

SafetensorsFile::SafetensorsFile(const std::string& path)
    : path_(path), mapping_(std::make_shared<const Mapping>(path)), header_(parse_safetensors_header(bytes(), path)) {
  for (size_t i = 0; i < header_.tensors.size(); ++i) index_.emplace(header_.tensors[i].name, i);
}

std::span<const std::byte> SafetensorsFile::bytes() const {
  return {static_cast<const std::byte*>(mapping_->data), mapping_->size};
}

const TensorInfo& SafetensorsFile::info(std::string_view name) const {
  const auto it = index_.find(name);
  if (it == index_.end()) throw std::runtime_error(fmt::format("{}: no tensor {}", path_, printable(name)));
  return header_.tensors[it->second];
}

at::Tensor SafetensorsFile::view(std::string_view name) const {
  const TensorInfo& tensor = info(name);
  const auto options = at::TensorOptions().dtype(tensor.dtype);
  if (tensor.begin == tensor.end) return at::empty(tensor.shape, options);
  const auto place = bytes().subspan(tensor.begin, tensor.end - tensor.begin);
  if (std::bit_cast<uintptr_t>(place.data()) % c10::elementSize(tensor.dtype) != 0) {
    at::Tensor copy = at::empty(tensor.shape, options);
    std::memcpy(copy.data_ptr(), place.data(), place.size());
    return copy;
  }
  // from_blob wants a mutable pointer; nothing writes through it.
  void* data = const_cast<std::byte*>(place.data());
  return at::from_blob(
      data, tensor.shape, [keep = mapping_](void*) {}, options);
}

void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<size_t> order(tensors.size());
  for (size_t i = 0; i < order.size(); ++i) {
    const auto& [name, tensor] = tensors[i];
    if (name == "__metadata__") throw std::invalid_argument(fmt::format("{}: \"__metadata__\" is reserved", path));
    if (!tensor.defined() || dtype_to_safetensors(tensor.scalar_type()).empty()) {
      throw std::invalid_argument(fmt::format("{}: tensor {} is {}, which safetensors cannot hold", path,
                                              printable(name),
                                              tensor.defined() ? c10::toString(tensor.scalar_type()) : "undefined"));
    }
    order[i] = i;
  }
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const auto wide = [&](size_t i) { return tensors[i].second.element_size(); };
    return wide(a) != wide(b) ? wide(a) > wide(b) : tensors[a].first < tensors[b].first;
  });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const size_t i : order) {
    const auto& [name, tensor] = tensors[i];
    if (header.contains(name)) {
      throw std::invalid_argument(fmt::format("{}: tensor {} is given twice", path, printable(name)));
    }
    const uint64_t end = offset + tensor.nbytes();
    header[name] = {{"dtype", dtype_to_safetensors(tensor.scalar_type())},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception&) {
    throw std::invalid_argument(fmt::format("{}: a name or metadata value is not UTF-8", path));
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');

  const uint64_t length = text.size();
  write_file_atomically(path, [&](std::ostream& out) {
    const auto write = [&](const void* bytes, size_t size) {
      out.write(static_cast<const char*>(bytes), static_cast<std::streamsize>(size));
    };
    write(&length, 8);
    out << text;
    for (const size_t i : order) {
      const at::Tensor stored = tensors[i].second.detach().cpu().contiguous();
      write(stored.const_data_ptr(), stored.nbytes());
    }
  });
}

}  // namespace hesper
