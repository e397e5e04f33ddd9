#include "text/npy.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstring>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "files/atomic_file.h"
#include "files/read_file.h"

namespace hesper {
namespace {

static_assert(std::endian::native == std::endian::little, "arrays are written as they lie in memory");

constexpr std::string_view kMagic("\x93NUMPY", 6);

struct Dtype {
  std::string_view descr;
  at::ScalarType type;
  size_t size;  // bytes an element
};
constexpr std::array<Dtype, 4> kDtypes = {
    {{"<i4", at::kInt, 4}, {"<i8", at::kLong, 8}, {"<f4", at::kFloat, 4}, {"<f8", at::kDouble, 8}}};

struct Header {
  std::string descr;
  bool fortran_order = false;
  std::vector<int64_t> shape;
};

// Reads the one Python literal that NumPy writes: {'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }
class HeaderReader {
 public:
  HeaderReader(std::string_view text, std::string_view name) : text_(text), name_(name) {}

  Header read() {
    Header header;
    bool has_descr = false, has_order = false, has_shape = false;
    expect('{');
    while (!take('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr") {
        header.descr = quoted(), has_descr = true;
      } else if (key == "fortran_order") {
        header.fortran_order = boolean(), has_order = true;
      } else if (key == "shape") {
        header.shape = shape(), has_shape = true;
      } else {
        fail("unknown key '" + key + "'");
      }
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (!text_.empty()) fail("text after the dictionary");
    if (!has_descr || !has_order || !has_shape) fail("descr, fortran_order or shape is missing");
    return header;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error(fmt::format("{}: bad .npy header: {}", name_, what));
  }
  void skip_space() {
    while (!text_.empty() && (text_[0] == ' ' || text_[0] == '\n')) text_.remove_prefix(1);
  }
  bool take(char c) {
    skip_space();
    if (text_.empty() || text_[0] != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail(fmt::format("'{}' expected", c));
  }
  std::string quoted() {
    skip_space();
    const char quote = text_.empty() ? '\0' : text_[0];
    if (quote != '\'' && quote != '"') fail("a quoted string expected (records are not supported)");
    const size_t end = text_.find(quote, 1);
    if (end == std::string_view::npos) fail("a string without its end");
    std::string value(text_.substr(1, end - 1));
    for (const char c : value)
      if (c < ' ' || c > '~') fail("a string with bytes that are not printable ASCII");
    text_.remove_prefix(end + 1);
    return value;
  }
  bool boolean() {
    skip_space();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.starts_with(word)) {
        text_.remove_prefix(word.size());
        return value;
      }
    }
    fail("True or False expected");
  }
  std::vector<int64_t> shape() {
    std::vector<int64_t> sizes;
    expect('(');
    while (!take(')')) {
      skip_space();
      int64_t value = 0;
      const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), value);
      if (error != std::errc() || value < 0) fail("a size of the shape is not a whole number that fits 64 bits");
      text_.remove_prefix(static_cast<size_t>(end - text_.data()));
      sizes.push_back(value);
      if (sizes.size() > 64) fail("more than 64 dimensions");
      if (!take(',')) {
        expect(')');
        break;
      }
    }
    return sizes;
  }

  std::string_view text_;
  std::string_view name_;
};

uint32_t little_endian(std::span<const std::byte> bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < bytes.size(); ++i) value |= std::to_integer<uint32_t>(bytes[i]) << (8 * i);
  return value;
}

}  // namespace

at::Tensor parse_npy(std::span<const std::byte> bytes, std::string_view name) {
  const auto fail = [&](const std::string& what) { throw std::runtime_error(fmt::format("{}: {}", name, what)); };
  if (bytes.size() < 10 || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) fail("not a .npy file");
  const int major = std::to_integer<int>(bytes[6]);
  if (major < 1 || major > 3) fail(fmt::format(".npy version {} is not supported (1 to 3 are)", major));
  const size_t start = major == 1 ? 10 : 12;
  if (bytes.size() < start) fail("truncated .npy header");
  const size_t length = little_endian(bytes.subspan(8, start - 8));
  if (length > bytes.size() - start) {
    fail(fmt::format("truncated .npy header: {} bytes named, {} there", length, bytes.size() - start));
  }
  const Header header = HeaderReader({reinterpret_cast<const char*>(bytes.data()) + start, length}, name).read();

  std::optional<Dtype> dtype;
  for (const Dtype& candidate : kDtypes) {
    if (header.descr == candidate.descr) dtype = candidate;
  }
  if (!dtype) {
    fail(fmt::format("dtype '{}' is not supported (<i4, <i8, <f4, <f8 are)", header.descr));
  }
  if (header.fortran_order && header.shape.size() > 1) fail("Fortran order is not supported: save it in C order");

  const std::span<const std::byte> data = bytes.subspan(start + length);
  uint64_t needed = dtype->size;  // with empty dimensions counted as one, so that no other size is left unchecked
  bool empty = false;
  for (const int64_t size : header.shape) {
    const auto extent = static_cast<uint64_t>(std::max<int64_t>(size, 1));
    if (extent > std::numeric_limits<int64_t>::max() / needed) fail("the shape is larger than 64 bits can count");
    needed *= extent;
    empty |= size == 0;
  }
  if (empty) needed = 0;
  if (data.size() != needed) fail(fmt::format("{} bytes of data, but the shape needs {}", data.size(), needed));
  at::Tensor tensor = at::empty(header.shape, at::TensorOptions(dtype->type));
  if (needed > 0) std::memcpy(tensor.mutable_data_ptr(), data.data(), data.size());
  return tensor;
}

at::Tensor read_npy(const std::filesystem::path& path) {
  const std::string bytes = read_file(path, size_t{1} << 40);
  return parse_npy(std::as_bytes(std::span(bytes)), path.string());
}

void write_npy(const std::filesystem::path& path, const at::Tensor& tensor) {
  const at::Tensor data = tensor.detach().cpu().contiguous();
  std::optional<Dtype> dtype;
  for (const Dtype& candidate : kDtypes) {
    if (data.scalar_type() == candidate.type) dtype = candidate;
  }
  if (!dtype) {
    throw std::invalid_argument(
        fmt::format("{}: cannot write dtype {} as .npy", path.string(), c10::toString(data.scalar_type())));
  }
  std::string shape;
  for (const int64_t size : data.sizes()) shape += fmt::format("{}, ", size);
  if (data.dim() > 1) shape.resize(shape.size() - 2);
  if (data.dim() == 1) shape.pop_back();
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", dtype->descr, shape);
  header.append(63 - (10 + header.size()) % 64, ' ');  // the data start at a multiple of 64
  header += '\n';
  std::string prefix(kMagic);
  prefix += {'\x01', '\x00', static_cast<char>(header.size() & 255), static_cast<char>(header.size() >> 8)};
  prefix += header;
  write_file_atomically(path, [&](std::ostream& out) {
    out << prefix;
    out.write(static_cast<const char*>(data.const_data_ptr()), static_cast<std::streamsize>(data.nbytes()));
  });
}

}  // namespace hesper
