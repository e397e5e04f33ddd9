#pragma once
// Files that hold texts as rows: Parquet, and JSON lines ({"text": "..", ..} each).
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace hesper {

inline constexpr size_t max_text_bytes = size_t{1} << 32;  // of one file's texts, unpacked

/// By the name's ending: .parquet, .jsonl, .jsonl.gz, .json.gz.
bool holds_rows(const std::filesystem::path& file);

/// The texts of a column, row after row; null is "". Throws std::runtime_error, one line, naming file and line or what
/// the file has instead of the column.
std::vector<std::string> read_rows(const std::filesystem::path& file, const std::string& column);

/// Of JSON lines in memory; blank lines are none.
std::vector<std::string> json_lines_column(std::string_view lines, const std::string& column, const std::string& name);

}  // namespace hesper
