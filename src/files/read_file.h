#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

namespace hesper {

// All bytes of a regular file. std::runtime_error when it cannot be read or is larger than `limit` bytes.
std::string read_file(const std::filesystem::path& path, size_t limit = size_t{1} << 32);

}  // namespace hesper
