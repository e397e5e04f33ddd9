#include "files/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <filesystem>
#include <optional>
#include <set>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "files/printable.h"

namespace hesper {
namespace {

constexpr GgmlType types[] = {
    {0, "F32", 1, 4},       {1, "F16", 1, 2},       {2, "Q4_0", 32, 18},    {3, "Q4_1", 32, 20},
    {6, "Q5_0", 32, 22},    {7, "Q5_1", 32, 24},    {8, "Q8_0", 32, 34},    {10, "Q2_K", 256, 84},
    {11, "Q3_K", 256, 110}, {12, "Q4_K", 256, 144}, {13, "Q5_K", 256, 176}, {14, "Q6_K", 256, 210},
    {30, "BF16", 1, 2},
};

// Types that are known by name only.
constexpr std::pair<uint32_t, std::string_view> other_types[] = {
    {9, "Q8_1"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"},
    {21, "IQ3_S"}, {22, "IQ2_S"}, {23, "IQ4_XS"},  {24, "I8"},     {25, "I16"},     {26, "I32"},   {27, "I64"},
    {28, "F64"},   {29, "IQ1_M"}, {34, "TQ1_0"},   {35, "TQ2_0"},  {39, "MXFP4"},   {40, "NVFP4"}, {41, "Q1_0"},
};

// The format's numbers of the kinds of metadata values.
enum Kind : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64, kinds };
constexpr uint64_t kind_bytes[kinds] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};  // 0: of varying length

constexpr size_t max_dimensions = 4;
constexpr uint64_t max_elements = uint64_t{1} << 62;
constexpr uint64_t max_alignment = 1 << 20;
constexpr uint64_t max_values = 1 << 16;  // of the metadata; real files have some forty
constexpr uint64_t max_tensors = 1 << 18;

class Parser {
 public:
  Parser(std::span<const std::byte> bytes, const std::string& file)
      : file_(file), bytes_(reinterpret_cast<const char*>(bytes.data()), bytes.size()) {}

  Gguf parse() {
    if (!bytes_.starts_with("GGUF"))
      fail("not a GGUF file: its first four bytes are {}", printable(bytes_.substr(0, 4)));
    at_ = 4;
    Gguf gguf;
    gguf.version = static_cast<uint32_t>(integer(4));
    if (gguf.version == 0x02000000 || gguf.version == 0x03000000) {
      fail("big-endian, only little-endian GGUF is read");
    }
    if (gguf.version != 2 && gguf.version != 3) fail("GGUF version {}, versions 2 and 3 are read", gguf.version);
    const uint64_t tensor_count = integer(8), value_count = integer(8);
    if (tensor_count > max_tensors) fail("{} tensors, at most {} are read", tensor_count, max_tensors);
    if (value_count > max_values) fail("{} metadata values, at most {} are read", value_count, max_values);
    for (uint64_t i = 0; i < value_count; ++i) read_value(gguf);
    const uint64_t alignment = read_alignment(gguf);
    for (uint64_t i = 0; i < tensor_count; ++i) gguf.tensors.push_back(read_tensor());
    place(gguf.tensors, (at_ + alignment - 1) / alignment * alignment, alignment);
    return gguf;
  }

 private:
  template <typename... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) const {
    throw std::runtime_error(fmt::format("{}: {}", file_, fmt::format(text, std::forward<Args>(args)...)));
  }

  std::string_view take(uint64_t size) {
    if (size > bytes_.size() - at_) fail("cut short: {} bytes at byte {} of {}", size, at_, bytes_.size());
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  uint64_t integer(uint64_t width) {
    uint64_t value = 0;
    const std::string_view data = take(width);
    for (size_t i = data.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(data[i]);
    return value;
  }
  int64_t signed_integer(int width) {
    const int shift = 64 - 8 * width;
    return static_cast<int64_t>(integer(static_cast<uint64_t>(width)) << shift) >> shift;
  }
  std::string_view text() { return take(integer(8)); }

  GgufArray read_array(std::string_view key) {
    GgufArray values{static_cast<uint32_t>(integer(4)), integer(8), {}};
    if (values.type >= kinds) fail("{}: an array of the unknown type {}", printable(key), values.type);
    if (values.type == array) fail("{}: arrays inside arrays are not supported", printable(key));
    const size_t begin = at_;
    if (values.type == string) {
      for (uint64_t i = 0; i < values.count; ++i) text();
    } else {
      if (values.count > bytes_.size() / kind_bytes[values.type]) {
        fail("{}: {} values of {} bytes, but {} bytes are left", printable(key), values.count, kind_bytes[values.type],
             bytes_.size() - at_);
      }
      take(values.count * kind_bytes[values.type]);
    }
    values.bytes = bytes_.substr(begin, at_ - begin);
    return values;
  }

  void read_value(Gguf& gguf) {
    const std::string_view key = text();
    const auto type = static_cast<uint32_t>(integer(4));
    GgufValue value;
    switch (type) {
      case u8:
      case u16:
      case u32:
      case u64:
        value = integer(kind_bytes[type]);
        break;
      case i8:
      case i16:
      case i32:
      case i64:
        value = signed_integer(static_cast<int>(kind_bytes[type]));
        break;
      case f32:
        value = std::bit_cast<float>(static_cast<uint32_t>(integer(4)));
        break;
      case f64:
        value = std::bit_cast<double>(integer(8));
        break;
      case boolean:
        value = integer(1) != 0;
        break;
      case string:
        value = text();
        break;
      case array:
        value = read_array(key);
        break;
      default:
        fail("{}: a value of the unknown type {}", printable(key), type);
    }
    if (!gguf.metadata.emplace(key, value).second) fail("{} is there twice", printable(key));
  }

  uint64_t read_alignment(const Gguf& gguf) const {
    if (!gguf.metadata.contains("general.alignment")) return 32;
    const uint64_t alignment = GgufFields(gguf, file_).integer("general.alignment", max_alignment);
    if (!std::has_single_bit(alignment)) fail("general.alignment = {} is not a power of two", alignment);
    return alignment;
  }

  const GgmlType* type_of(const std::string& name, uint32_t number) const {
    for (const GgmlType& type : types) {
      if (type.number == number) return &type;
    }
    for (const auto& [known, type] : other_types) {
      if (known == number) fail("tensor {}: type {} is not supported", printable(name), type);
    }
    fail("tensor {}: type {} is not known", printable(name), number);
  }

  // begin and end count from the start of the data until place() has moved them.
  GgufTensor read_tensor() {
    GgufTensor tensor;
    tensor.name = std::string(text());
    const uint64_t dimensions = integer(4);
    if (dimensions < 1 || dimensions > max_dimensions) {
      fail("tensor {}: {} dimensions, 1 to {} are read", printable(tensor.name), dimensions, max_dimensions);
    }
    uint64_t elements = 1;
    for (uint64_t i = 0; i < dimensions; ++i) {
      const uint64_t size = integer(8);
      if (size == 0) fail("tensor {}: a dimension of 0", printable(tensor.name));
      if (__builtin_mul_overflow(elements, size, &elements) || elements > max_elements) {
        fail("tensor {}: its shape overflows", printable(tensor.name));
      }
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
    }
    tensor.type = type_of(tensor.name, static_cast<uint32_t>(integer(4)));
    const auto row = static_cast<uint64_t>(tensor.shape.back());
    if (row % tensor.type->elements != 0) {
      fail("tensor {}: rows of {} are no whole number of {} blocks of {}", printable(tensor.name), row,
           tensor.type->name, tensor.type->elements);
    }
    tensor.begin = integer(8);
    uint64_t size = 0;
    if (__builtin_mul_overflow(elements / tensor.type->elements, tensor.type->bytes, &size) ||
        __builtin_add_overflow(tensor.begin, size, &tensor.end)) {
      fail("tensor {}: its size overflows", printable(tensor.name));
    }
    return tensor;
  }

  void place(std::vector<GgufTensor>& tensors, uint64_t data, uint64_t alignment) const {
    const uint64_t available = bytes_.size() - std::min<uint64_t>(data, bytes_.size());
    std::set<std::string_view> names;
    std::vector<std::pair<uint64_t, uint64_t>> places;
    for (GgufTensor& tensor : tensors) {
      const std::string name = printable(tensor.name);
      if (!names.insert(tensor.name).second) fail("tensor {} is there twice", name);
      if (tensor.begin % alignment != 0) fail("tensor {}: byte {} is no multiple of {}", name, tensor.begin, alignment);
      if (tensor.end > available) {
        fail("tensor {}: bytes {} to {} do not lie in the {} bytes of data", name, tensor.begin, tensor.end, available);
      }
      places.emplace_back(tensor.begin, tensor.end);
      tensor.begin += data;
      tensor.end += data;
    }
    std::sort(places.begin(), places.end());
    for (size_t i = 1; i < places.size(); ++i) {
      if (places[i].first < places[i - 1].second) {
        fail("two tensors overlap: bytes {} to {} and {} to {} of the data", places[i - 1].first, places[i - 1].second,
             places[i].first, places[i].second);
      }
    }
  }

  const std::string& file_;
  std::string_view bytes_;
  size_t at_ = 0;
};

// Little-endian number at the front, taken off. The array's length has been checked.
uint64_t take_integer(std::string_view& bytes, size_t width) {
  uint64_t value = 0;
  for (size_t i = width; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  bytes.remove_prefix(width);
  return value;
}

}  // namespace

Gguf parse_gguf(std::span<const std::byte> bytes, const std::string& file) { return Parser(bytes, file).parse(); }

std::string only_gguf_file(const std::string& folder) {
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".gguf" && entry.is_regular_file()) found.push_back(entry.path().string());
  }
  if (found.size() > 1) {
    throw std::runtime_error(
        fmt::format("{}: {} .gguf files and no other weights; name one of them", folder, found.size()));
  }
  return found.empty() ? "" : found[0];
}

const GgufValue& GgufFields::at(std::string_view key) const {
  const auto found = gguf_->metadata.find(key);
  if (found == gguf_->metadata.end()) fail(key, "is missing");
  return found->second;
}

void GgufFields::fail(std::string_view key, const std::string& what) const {
  throw std::runtime_error(fmt::format("{}: {} {}", file_, key, what));
}

void GgufFields::refuse(std::string_view key, const std::string& why) const {
  const std::string shown = std::visit(
      [](const auto& value) -> std::string {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, std::string_view>)
          return printable(value);
        else if constexpr (std::is_same_v<T, GgufArray>)
          return fmt::format("a list of {}", value.count);
        else
          return fmt::format("{}", value);
      },
      at(key));
  fail(key, fmt::format("= {} {}", shown, why));
}

std::string GgufFields::text(std::string_view key) const {
  if (const auto* value = std::get_if<std::string_view>(&at(key))) return std::string(*value);
  refuse(key, "is not a text");
}

std::string GgufFields::text_or(std::string_view key, std::string fallback) const {
  return has(key) ? text(key) : std::move(fallback);
}

uint64_t GgufFields::integer(std::string_view key, uint64_t most) const {
  const GgufValue& value = at(key);
  std::optional<uint64_t> number;
  if (const auto* u = std::get_if<uint64_t>(&value)) number = *u;
  if (const auto* i = std::get_if<int64_t>(&value); i != nullptr && *i >= 0) number = static_cast<uint64_t>(*i);
  if (!number || *number > most) refuse(key, fmt::format("is not an integer from 0 to {}", most));
  return *number;
}

uint64_t GgufFields::integer_or(std::string_view key, uint64_t most, uint64_t fallback) const {
  return has(key) ? integer(key, most) : fallback;
}

double GgufFields::number(std::string_view key) const {
  const GgufValue& value = at(key);
  if (const auto* f = std::get_if<float>(&value)) return std::stod(fmt::format("{}", *f));
  if (const auto* d = std::get_if<double>(&value)) return *d;
  refuse(key, "is not a number");
}

bool GgufFields::boolean_or(std::string_view key, bool fallback) const {
  if (!has(key)) return fallback;
  if (const auto* value = std::get_if<bool>(&at(key))) return *value;
  refuse(key, "is not true or false");
}

std::vector<std::string_view> GgufFields::texts(std::string_view key) const {
  const auto* values = std::get_if<GgufArray>(&at(key));
  if (values == nullptr || values->type != string) refuse(key, "is not a list of texts");
  std::vector<std::string_view> out;
  std::string_view rest = values->bytes;
  for (uint64_t i = 0; i < values->count; ++i) {
    const uint64_t size = take_integer(rest, 8);
    out.push_back(rest.substr(0, size));
    rest.remove_prefix(size);
  }
  return out;
}

std::vector<int64_t> GgufFields::integers(std::string_view key) const {
  const auto* values = std::get_if<GgufArray>(&at(key));
  if (values == nullptr || (values->type != i32 && values->type != u32)) {
    refuse(key, "is not a list of 32-bit integers");
  }
  std::vector<int64_t> out;
  std::string_view rest = values->bytes;
  for (uint64_t i = 0; i < values->count; ++i) {
    const auto bits = static_cast<uint32_t>(take_integer(rest, 4));
    out.push_back(values->type == u32 ? int64_t{bits} : int64_t{static_cast<int32_t>(bits)});
  }
  return out;
}

std::vector<float> GgufFields::floats(std::string_view key) const {
  const auto* values = std::get_if<GgufArray>(&at(key));
  if (values == nullptr || values->type != f32) refuse(key, "is not a list of 32-bit floats");
  std::vector<float> out;
  std::string_view rest = values->bytes;
  for (uint64_t i = 0; i < values->count; ++i) {
    out.push_back(std::bit_cast<float>(static_cast<uint32_t>(take_integer(rest, 4))));
  }
  return out;
}

}  // namespace hesper
