#include "text/rows.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "files/gzip.h"
#include "files/mapped_file.h"
#include "files/printable.h"
#include "files/read_file.h"
#include "text/parquet.h"

namespace hesper {
namespace {

// The text of one line's column.
std::string text_of(const nlohmann::json& row, const std::string& column, const std::string& where) {
  if (!row.is_object()) throw std::runtime_error(fmt::format("{}: not a JSON object", where));
  const auto found = row.find(column);
  if (found != row.end() && found->is_string()) return found->get<std::string>();
  if (found != row.end() && found->is_null()) return "";
  std::vector<std::string> texts;
  for (const auto& [key, value] : row.items()) {
    if (value.is_string() && texts.size() < 20) texts.push_back(printable(key));
  }
  throw std::runtime_error(fmt::format("{}: no text named {}; there {} (--text-column)", where, printable(column),
                                       texts.empty() ? "is none" : fmt::format("are {}", fmt::join(texts, ", "))));
}

}  // namespace

bool holds_rows(const std::filesystem::path& file) {
  const std::string name = file.filename().string();
  return name.ends_with(".parquet") || name.ends_with(".jsonl") || name.ends_with(".jsonl.gz") ||
         name.ends_with(".json.gz");
}

std::vector<std::string> json_lines_column(std::string_view lines, const std::string& column, const std::string& name) {
  std::vector<std::string> rows;
  for (int64_t number = 1; !lines.empty(); ++number) {
    const std::string_view line = lines.substr(0, lines.find('\n'));
    lines.remove_prefix(std::min(line.size() + 1, lines.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}: line {}", name, number);
    const nlohmann::json row = nlohmann::json::parse(line, nullptr, false);
    if (row.is_discarded()) throw std::runtime_error(fmt::format("{}: not JSON", where));
    rows.push_back(text_of(row, column, where));
  }
  return rows;
}

std::vector<std::string> read_rows(const std::filesystem::path& file, const std::string& column) {
  const std::string name = file.string();
  if (name.ends_with(".parquet")) {
    return parquet_column(MappedFile(name).bytes(), column, name, max_text_bytes);
  }
  if (name.ends_with(".gz"))
    return json_lines_column(gunzip(MappedFile(name).bytes(), name, max_text_bytes), column, name);
  return json_lines_column(read_file(file, max_text_bytes), column, name);
}

}  // namespace hesper
