#pragma once
#include <filesystem>
#include <functional>
#include <string>

namespace hesper {

/// The hash that an etag of the hub promises for a file, hex: 64 digits ask for the sha256 of its bytes, 40 for the
/// object name that git gives it, sha1("blob SIZE\0" + bytes). Empty for an etag of another kind, which promises
/// nothing. `between` is called every few MB. Throws std::runtime_error when the file cannot be read.
std::string blob_hash(const std::filesystem::path& file, const std::string& etag, const std::function<void()>& between);

}  // namespace hesper
