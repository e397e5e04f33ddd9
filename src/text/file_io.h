#pragma once
// Whole files in, whole files out.
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

namespace hesper {

// All bytes of a regular file. std::runtime_error when it cannot be read or is larger than `limit` bytes.
std::string read_file(const std::filesystem::path& path, size_t limit = size_t{1} << 32);

// Writes beside the target, syncs, renames: the target is either the old file or the whole new one.
// `parts` are written one after another. std::runtime_error naming the target on failure, nothing left behind.
void write_file_atomic(const std::filesystem::path& path, std::span<const std::span<const std::byte>> parts);

}  // namespace hesper
