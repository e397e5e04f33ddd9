#pragma once
// The normalizer of a tokenizer.json: text -> text, before it is cut to words.
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/regex.h"

namespace hesper {

struct PrependStep {
  std::string text;
};
struct ReplaceStep {
  std::string from, to;  // from is not empty
};
struct ReplacePatternStep {
  Regex pattern;
  std::string to;
};
struct StripStep {  // white space at the ends
  bool left, right;
};
/// Unicode normalization, by the tables of the installed utf8proc.
struct NormalFormStep {
  enum class Form { nfc, nfd, nfkc, nfkd };
  Form form;
};
using NormalizerStep = std::variant<PrependStep, ReplaceStep, ReplacePatternStep, StripStep, NormalFormStep>;

// Valid UTF-8 in and out; an empty text stays empty.
std::string normalize(const std::vector<NormalizerStep>& steps, std::string_view text);

std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

}  // namespace hesper
