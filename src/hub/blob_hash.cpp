#include "hub/blob_hash.h"

#include <fmt/format.h>

#include <fstream>
#include <span>
#include <stdexcept>
#include <vector>

#include "files/digest.h"

namespace hesper {
namespace {

void update_with_file(Digest& digest, const std::filesystem::path& path, const std::function<void()>& between) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> part(4 << 20);
  while (file) {
    file.read(part.data(), static_cast<std::streamsize>(part.size()));
    digest.update(std::as_bytes(std::span(part.data(), static_cast<size_t>(file.gcount()))));
    between();
  }
  if (!file.eof()) throw std::runtime_error(fmt::format("cannot read {}", path.string()));
}

bool is_hex(const std::string& text) { return text.find_first_not_of("0123456789abcdef") == std::string::npos; }

}  // namespace

std::string blob_hash(const std::filesystem::path& file, const std::string& etag,
                      const std::function<void()>& between) {
  if (etag.size() == 64 && is_hex(etag)) {
    Sha256 digest;
    update_with_file(digest, file, between);
    return digest.hex();
  }
  if (etag.size() == 40 && is_hex(etag)) {
    Sha1 digest;
    const std::string head = fmt::format("blob {}", std::filesystem::file_size(file));
    digest.update(std::as_bytes(std::span(head.c_str(), head.size() + 1)));
    update_with_file(digest, file, between);
    return digest.hex();
  }
  return "";
}

}  // namespace hesper
