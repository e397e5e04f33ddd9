#pragma once
// Text files as one document each. Ill-formed UTF-8 becomes U+FFFD.
#include <filesystem>
#include <string>
#include <string_view>

namespace hesper {

// Any text file as it is. std::invalid_argument when it holds no text, std::runtime_error when it cannot be read.
std::string text_document(const std::filesystem::path& path);

// WikiText-2 raw (wiki.test.raw) as the evaluations of the literature join it: a line of only white space is an empty
// row, every other row keeps its newline, rows are joined by two newlines, nothing after the last. Errors as above.
std::string wikitext2_document(const std::filesystem::path& path);

// The joining alone.
std::string join_wikitext2_rows(std::string_view raw);

}  // namespace hesper
