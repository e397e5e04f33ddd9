#pragma once
// The pre_tokenizer of a tokenizer.json: text -> words, inside which the BPE merges.
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/regex.h"

namespace hesper {

// Split at the matches: matches and gaps are words, one of the two kinds is thrown away, a match joins the gap before
// or behind it (of several neighbours the first, the last), or neighbouring matches are one word.
struct SplitStep {
  enum class Keep { both, gaps, matches, with_previous, with_next, runs };
  Regex pattern;
  Keep keep = Keep::both;
  bool invert = false;  // with_previous, with_next, runs: gaps are taken for matches
};

// Bytes -> 256 printable code points, after an optional leading space and an optional split by GPT-2's pattern.
struct ByteLevelStep {
  bool add_prefix_space = false;
  std::optional<Regex> pattern;
};

// Spaces -> replacement, one put in front by the scheme; optionally a word starts at each replacement.
struct MetaspaceStep {
  enum class Prepend { always, first, never };
  std::string replacement;  // one code point
  Prepend prepend = Prepend::always;
  bool split = true;
};

using PreTokenizerStep = std::variant<SplitStep, ByteLevelStep, MetaspaceStep>;

// `at_start`: the text starts the document (Prepend::first asks). Valid UTF-8 in, no empty words out.
std::vector<std::string> pre_tokenize(const std::vector<PreTokenizerStep>& steps, std::string_view text, bool at_start);

// The split patterns of GPT-2, Llama 3 and Qwen 2.
Regex gpt2_pattern();
Regex llama3_pattern();
Regex qwen2_pattern();

// The code point that stands for a byte, as UTF-8; and the way back: bytes of the code points, nullopt if one is none.
std::string byte_level_encode(std::string_view bytes);
std::optional<std::string> byte_level_decode(std::string_view text);

}  // namespace hesper
