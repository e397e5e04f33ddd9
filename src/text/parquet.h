#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace hesper {

/// Whether this build has Apache Arrow.
bool reads_parquet();

/// A column of texts of a Parquet file, row after row; null is "". `name` stands in errors. Throws std::runtime_error
/// where the bytes are no such file, have no column of texts of that name, or hold more than `limit` bytes of text; and
/// always in a build without Arrow, saying what to install.
std::vector<std::string> parquet_column(std::span<const std::byte> bytes, const std::string& column,
                                        const std::string& name, size_t limit);

}  // namespace hesper
