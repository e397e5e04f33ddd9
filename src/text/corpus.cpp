#include "text/corpus.h"

#include <fmt/format.h>

#include <stdexcept>

#include "files/gzip.h"
#include "files/mapped_file.h"
#include "files/read_file.h"
#include "text/rows.h"
#include "text/utf8.h"

namespace hesper {
namespace {

// Only what Python's str.strip() takes away: Unicode white space and the separators U+001C..U+001F.
bool is_blank(std::string_view line) {
  for (size_t i = 0; i < line.size();) {
    const char32_t c = decode_utf8(line, i);
    if (!is_white_space(c) && (c < 0x1C || c > 0x1F)) return false;
  }
  return true;
}

// One row where the file holds none of its own.
std::vector<std::string> rows_of(const std::filesystem::path& path, const std::string& column) {
  if (holds_rows(path)) return read_rows(path, column);
  const std::string name = path.string();
  return {name.ends_with(".gz") ? gunzip(MappedFile(name).bytes(), name, max_text_bytes) : read_file(path)};
}

}  // namespace

std::string join_wikitext2_rows(std::string_view raw) {
  std::string document;
  document.reserve(raw.size() + raw.size() / 8);
  for (bool first = true; !raw.empty(); first = false) {
    const size_t length = std::min(raw.find('\n'), raw.size() - 1) + 1;  // with its newline
    const std::string_view line = raw.substr(0, length);
    raw.remove_prefix(length);
    if (!first) document += "\n\n";
    if (!is_blank(line)) document += line;
  }
  return document;
}

std::string text_document(std::span<const std::filesystem::path> paths, const std::string& column) {
  std::string document;
  bool first = true;
  for (const std::filesystem::path& path : paths) {
    for (const std::string& row : rows_of(path, column)) {
      if (!first) document += "\n\n";
      first = false;
      document += row;
      if (document.size() > max_text_bytes) {
        throw std::runtime_error(fmt::format("{}: more than {} bytes of text", path.string(), max_text_bytes));
      }
    }
  }
  document = replace_invalid_utf8(document);
  if (is_blank(document)) throw std::invalid_argument(fmt::format("{}: the text is empty", paths.front().string()));
  return document;
}

std::string text_document(const std::filesystem::path& path, const std::string& column) {
  return text_document(std::span(&path, 1), column);
}

std::string wikitext2_document(const std::filesystem::path& path) {
  const std::string text = text_document(path);
  return holds_rows(path) ? text : join_wikitext2_rows(text);
}

}  // namespace hesper
