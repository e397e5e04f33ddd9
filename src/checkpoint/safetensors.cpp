#include "checkpoint/safetensors.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "files/atomic_file.h"

namespace hesper {

SafetensorsFile::SafetensorsFile(const std::string& path) : WeightFile(path) {
  SafetensorsHeader header = parse_safetensors_header(bytes(), path);
  metadata_ = std::move(header.metadata);
  set_tensors(std::move(header.tensors));
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
