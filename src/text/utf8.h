#pragma once
// UTF-8 by hand: the tokenizers work on valid text only, so every text passes replace_invalid_utf8 once.
#include <cstddef>
#include <string>
#include <string_view>

namespace hesper {

// Each maximal ill-formed part becomes one U+FFFD, as Python's bytes.decode("utf-8", errors="replace").
std::string replace_invalid_utf8(std::string_view bytes);

// The following expect valid UTF-8.
char32_t decode_utf8(std::string_view text, size_t& position);  // moves position behind the code point
void append_utf8(std::string& text, char32_t code_point);
size_t utf8_length(char lead);  // bytes of the code point that starts with `lead`

// Unicode White_Space.
bool is_white_space(char32_t code_point);

}  // namespace hesper
