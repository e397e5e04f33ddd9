#pragma once
// Files of text as one document. Ill-formed UTF-8 becomes U+FFFD.
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace hesper {

// Any text file as it is (.gz: unpacked); of a file of rows (rows.h) the texts of `column`, joined by two newlines.
// std::invalid_argument when it holds no text, std::runtime_error when it cannot be read.
std::string text_document(const std::filesystem::path& path, const std::string& column = "text");
// Several files in their order, joined in the same way. Errors as above.
std::string text_document(std::span<const std::filesystem::path> paths, const std::string& column);

// WikiText-2 raw (wiki.test.raw; or its rows as Parquet) as the evaluations of the literature join it: a line of only
// white space is an empty row, every other row keeps its newline, rows are joined by two newlines, nothing after the
// last. Errors as above.
std::string wikitext2_document(const std::filesystem::path& path);

// The joining alone.
std::string join_wikitext2_rows(std::string_view raw);

}  // namespace hesper
