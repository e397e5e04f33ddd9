#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace hesper {

/// The bytes in a gzip file, of one member or several. `name` stands in errors: throws std::runtime_error where the
/// data is damaged, ends early or holds more than `limit` bytes.
std::string gunzip(std::span<const std::byte> bytes, const std::string& name, size_t limit);

}  // namespace hesper
