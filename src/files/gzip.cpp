#include "files/gzip.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <stdexcept>

namespace hesper {

std::string gunzip(std::span<const std::byte> bytes, const std::string& name, size_t limit) {
  z_stream stream = {};
  constexpr int gzip_window = 15 + 16;
  if (inflateInit2(&stream, gzip_window) != Z_OK) throw std::bad_alloc();
  const std::unique_ptr<z_stream, int (*)(z_stream*)> ending(&stream, inflateEnd);
  std::string out, part(1 << 18, '\0');
  const std::byte* next = bytes.data();
  size_t left = bytes.size();
  while (true) {
    if (stream.avail_in == 0) {  // zlib counts in 32 bits
      const size_t count = std::min<size_t>(left, std::numeric_limits<uInt>::max());
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(next));
      stream.avail_in = static_cast<uInt>(count);
      next += count;
      left -= count;
    }
    stream.next_out = reinterpret_cast<Bytef*>(part.data());
    stream.avail_out = static_cast<uInt>(part.size());
    const int code = inflate(&stream, Z_NO_FLUSH);
    const size_t made = part.size() - stream.avail_out;
    if (made > limit - out.size()) throw std::runtime_error(fmt::format("{}: holds more than {} bytes", name, limit));
    out.append(part, 0, made);
    if (code == Z_STREAM_END) {
      if (stream.avail_in == 0 && left == 0) return out;
      inflateReset(&stream);
    } else if (code == Z_BUF_ERROR && stream.avail_in == 0 && left == 0) {
      throw std::runtime_error(fmt::format("{}: the gzip data ends early", name));
    } else if (code != Z_OK && code != Z_BUF_ERROR) {
      throw std::runtime_error(fmt::format("{}: not gzip data, or damaged", name));
    }
  }
}

}  // namespace hesper
