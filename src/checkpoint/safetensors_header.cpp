#include "checkpoint/safetensors_header.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <tuple>
#include <utility>

namespace hesper {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

constexpr uint64_t max_header_bytes = 100'000'000;  // the limit of the format's own reader
constexpr size_t max_dimensions = 32;
constexpr int max_depth = 8;
constexpr uint64_t max_elements = uint64_t{1} << 62;

constexpr std::array<std::pair<std::string_view, c10::ScalarType>, 10> dtype_names{{
    {"F64", c10::ScalarType::Double},
    {"F32", c10::ScalarType::Float},
    {"F16", c10::ScalarType::Half},
    {"BF16", c10::ScalarType::BFloat16},
    {"I64", c10::ScalarType::Long},
    {"I32", c10::ScalarType::Int},
    {"I16", c10::ScalarType::Short},
    {"I8", c10::ScalarType::Char},
    {"U8", c10::ScalarType::Byte},
    {"BOOL", c10::ScalarType::Bool},
}};

template <typename... Args>
[[noreturn]] void fail(const std::string& file, fmt::format_string<Args...> text, Args&&... args) {
  throw std::runtime_error(fmt::format("{}: {}", file, fmt::format(text, std::forward<Args>(args)...)));
}

// Parses JSON text; a key that appears twice in one object is an error (nlohmann would keep the last in silence).
json parse_unique(std::string_view text, const std::string& file) {
  std::vector<std::set<std::string>> keys;
  std::string repeated;
  const auto on_event = [&](int depth, json::parse_event_t event, json& value) {
    if (depth > max_depth) fail(file, "safetensors header is nested more than {} deep", max_depth);
    if (event == json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == json::parse_event_t::key) {
      const auto& key = value.get_ref<const std::string&>();
      if (!keys.back().insert(key).second && repeated.empty()) repeated = printable(key);
    }
    return true;
  };
  json parsed;
  try {
    parsed = json::parse(text, on_event);
  } catch (const json::exception& error) {
    fail(file, "safetensors header is not JSON: {}", printable(error.what()));
  }
  if (!repeated.empty()) fail(file, "safetensors header names {} twice", repeated);
  return parsed;
}

uint64_t unsigned_at(const json& value, const std::string& file, const std::string& tensor, const char* what) {
  if (!value.is_number_unsigned()) {
    fail(file, "tensor {}: {} is {}, not a non-negative integer", tensor, what, printable(value.dump()));
  }
  return value.get<uint64_t>();
}

const json& member(const json& entry, const char* key, json::value_t type, const std::string& file,
                   const std::string& tensor) {
  const auto it = entry.find(key);
  if (it == entry.end() || it->type() != type) fail(file, "tensor {}: \"{}\" is missing or ill-typed", tensor, key);
  return *it;
}

// One entry {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} of a file whose data starts at data_begin.
TensorInfo parse_entry(const std::string& name, const json& entry, uint64_t data_begin, uint64_t data_bytes,
                       const std::string& file) {
  const std::string tensor = printable(name);
  if (!entry.is_object()) fail(file, "tensor {}: its header entry is not an object", tensor);
  if (entry.size() != 3) fail(file, "tensor {}: its header entry has {} members, expected 3", tensor, entry.size());

  TensorInfo info;
  info.name = name;
  const auto& dtype = member(entry, "dtype", json::value_t::string, file, tensor).get_ref<const std::string&>();
  const auto known = dtype_from_safetensors(dtype);
  if (!known) fail(file, "tensor {}: dtype {} is not supported", tensor, printable(dtype));
  info.dtype = *known;

  const json& shape = member(entry, "shape", json::value_t::array, file, tensor);
  if (shape.size() > max_dimensions) {
    fail(file, "tensor {}: {} dimensions, at most {} are supported", tensor, shape.size(), max_dimensions);
  }
  uint64_t elements = 1;
  uint64_t strides = 1;  // product with empty dimensions counted as 1, which strides are made of
  for (const json& extent : shape) {
    const uint64_t size = unsigned_at(extent, file, tensor, "a dimension");
    if (__builtin_mul_overflow(strides, std::max<uint64_t>(size, 1), &strides) || strides > max_elements) {
      fail(file, "tensor {}: shape [{}] overflows", tensor, fmt::join(shape.get<std::vector<uint64_t>>(), ", "));
    }
    elements *= size;
    info.shape.push_back(static_cast<int64_t>(size));
  }
  uint64_t size = 0;
  if (__builtin_mul_overflow(elements, uint64_t{c10::elementSize(info.dtype)}, &size)) {
    fail(file, "tensor {}: shape {} of {} overflows", tensor, format_shape(info.shape), dtype);
  }

  const json& offsets = member(entry, "data_offsets", json::value_t::array, file, tensor);
  if (offsets.size() != 2) fail(file, "tensor {}: {} data_offsets, expected 2", tensor, offsets.size());
  const uint64_t begin = unsigned_at(offsets[0], file, tensor, "an offset");
  const uint64_t end = unsigned_at(offsets[1], file, tensor, "an offset");
  if (begin > end || end > data_bytes) {
    fail(file, "tensor {}: bytes {} to {} do not lie in the {} bytes of data", tensor, begin, end, data_bytes);
  }
  if (end - begin != size) {
    fail(file, "tensor {}: {} bytes stored, shape {} of {} needs {}", tensor, end - begin, format_shape(info.shape),
         dtype, size);
  }
  info.begin = data_begin + begin;
  info.end = data_begin + end;
  return info;
}

}  // namespace

std::optional<c10::ScalarType> dtype_from_safetensors(std::string_view name) {
  for (const auto& [known, dtype] : dtype_names) {
    if (known == name) return dtype;
  }
  return std::nullopt;
}

std::string_view dtype_to_safetensors(c10::ScalarType dtype) {
  for (const auto& [name, known] : dtype_names) {
    if (known == dtype) return name;
  }
  return "";
}

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> bytes, const std::string& file) {
  if (bytes.size() < 8) fail(file, "{} bytes, a safetensors file has at least 8", bytes.size());
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | std::to_integer<uint64_t>(bytes[static_cast<size_t>(i)]);
  if (length > max_header_bytes) {
    fail(file, "safetensors header of {} bytes, at most {} are allowed", length, max_header_bytes);
  }
  if (length > bytes.size() - 8) {
    fail(file, "safetensors header of {} bytes, but {} follow: the file is truncated", length, bytes.size() - 8);
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, length);
  if (text.empty() || text.front() != '{') fail(file, "safetensors header does not start with '{{'");
  const json parsed = parse_unique(text, file);

  const uint64_t data_begin = 8 + length;
  const uint64_t data_bytes = bytes.size() - data_begin;
  SafetensorsHeader header;
  for (const auto& [name, entry] : parsed.items()) {
    if (name != "__metadata__") {
      header.tensors.push_back(parse_entry(name, entry, data_begin, data_bytes, file));
      continue;
    }
    if (!entry.is_object()) fail(file, "safetensors __metadata__ is not an object");
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) fail(file, "safetensors __metadata__ {} is not a string", printable(key));
      header.metadata[key] = value.get<std::string>();
    }
  }

  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t expected = data_begin;
  for (const TensorInfo& info : header.tensors) {
    if (info.begin != expected) {
      fail(file, "tensor {}: starts at byte {} of the data, the tensor before it ends at {}", printable(info.name),
           info.begin - data_begin, expected - data_begin);
    }
    expected = info.end;
  }
  if (expected != bytes.size()) {
    fail(file, "tensors hold {} bytes of data, the file has {}", expected - data_begin, data_bytes);
  }
  return header;
}

}  // namespace hesper
