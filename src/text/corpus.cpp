#include "text/corpus.h"

#include <fmt/format.h>

#include <stdexcept>

#include "files/read_file.h"
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

std::string read_text(const std::filesystem::path& path) {
  std::string text = replace_invalid_utf8(read_file(path));
  if (is_blank(text)) throw std::invalid_argument(fmt::format("{}: the text is empty", path.string()));
  return text;
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

std::string text_document(const std::filesystem::path& path) { return read_text(path); }

std::string wikitext2_document(const std::filesystem::path& path) { return join_wikitext2_rows(read_text(path)); }

}  // namespace hesper
