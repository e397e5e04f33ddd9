#include "text/pre_tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "text/utf8.h"

namespace hesper {
namespace {

// Printable bytes of Latin-1 stand for themselves, the other 68 for U+0100 + n in order.
std::array<char32_t, 256> make_byte_table() {
  std::array<char32_t, 256> table{};
  char32_t next = 256;
  for (char32_t b = 0; b < 256; ++b) {
    const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    table[b] = printable ? b : next++;
  }
  return table;
}
const std::array<char32_t, 256> kByteTable = make_byte_table();

void push(std::vector<std::string>& words, std::string_view word) {
  if (!word.empty()) words.emplace_back(word);
}

// A match, or a gap between two of them.
struct Part {
  size_t begin, end;
  bool match;
};

// Each part is a word of its own or goes on with its neighbour.
void merge(std::vector<Part> parts, SplitStep::Keep keep, std::string_view text, std::vector<std::string>& words) {
  const bool backwards = keep == SplitStep::Keep::with_next;
  if (backwards) std::reverse(parts.begin(), parts.end());
  std::vector<Part> merged;
  bool previous = false;
  for (const Part& part : parts) {
    const bool joins = keep == SplitStep::Keep::runs ? part.match == previous : part.match && !previous;
    previous = part.match;
    if (!joins || merged.empty())
      merged.push_back(part);
    else
      (backwards ? merged.back().begin : merged.back().end) = backwards ? part.begin : part.end;
  }
  if (backwards) std::reverse(merged.begin(), merged.end());
  for (const Part& part : merged) push(words, text.substr(part.begin, part.end - part.begin));
}

void split(const Regex& pattern, SplitStep::Keep keep, bool invert, std::string_view text,
           std::vector<std::string>& words) {
  using Keep = SplitStep::Keep;
  std::vector<Part> parts;
  size_t done = 0;
  for (const auto& [begin, end] : pattern.find_all(text)) {
    if (begin > done) parts.push_back({done, begin, false});
    if (end > begin) parts.push_back({begin, end, true});
    done = end;
  }
  if (done < text.size()) parts.push_back({done, text.size(), false});
  for (Part& part : parts) part.match ^= invert;
  if (keep == Keep::with_previous || keep == Keep::with_next || keep == Keep::runs)
    return merge(std::move(parts), keep, text, words);
  for (const Part& part : parts)
    if (keep == Keep::both || part.match == (keep == Keep::matches))
      push(words, text.substr(part.begin, part.end - part.begin));
}

struct ApplyStep {
  std::string_view text;
  bool at_start;
  std::vector<std::string>& words;

  void operator()(const SplitStep& step) const { split(step.pattern, step.keep, step.invert, text, words); }

  void operator()(const ByteLevelStep& step) const {
    std::string spaced;
    std::string_view source = text;
    if (step.add_prefix_space && !text.starts_with(' ')) {
      spaced = ' ';
      spaced += text;
      source = spaced;
    }
    if (!step.pattern) return push(words, byte_level_encode(source));
    std::vector<std::string> parts;
    split(*step.pattern, SplitStep::Keep::both, false, source, parts);
    for (const std::string& part : parts) words.push_back(byte_level_encode(part));
  }

  void operator()(const MetaspaceStep& step) const {
    std::string replaced;
    for (const char c : text) {
      if (c == ' ') {
        replaced += step.replacement;
      } else {
        replaced += c;
      }
    }
    using Prepend = MetaspaceStep::Prepend;
    const bool prepend = step.prepend == Prepend::always || (step.prepend == Prepend::first && at_start);
    if (prepend && !replaced.starts_with(step.replacement)) replaced.insert(0, step.replacement);
    if (!step.split) return push(words, replaced);
    size_t begin = 0;
    while (begin < replaced.size()) {
      const size_t end = std::min(replaced.find(step.replacement, begin + 1), replaced.size());
      push(words, std::string_view(replaced).substr(begin, end - begin));
      begin = end;
    }
  }
};

}  // namespace

std::string byte_level_encode(std::string_view bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  for (const char byte : bytes) append_utf8(text, kByteTable[static_cast<unsigned char>(byte)]);
  return text;
}

std::optional<std::string> byte_level_decode(std::string_view text) {
  static const std::array<int, 512> inverse = [] {
    std::array<int, 512> table{};
    table.fill(-1);
    for (int b = 0; b < 256; ++b) table[kByteTable[static_cast<size_t>(b)]] = b;
    return table;
  }();
  std::string bytes;
  for (size_t i = 0; i < text.size();) {
    const char32_t c = decode_utf8(text, i);
    if (c >= inverse.size() || inverse[c] < 0) return std::nullopt;
    bytes += static_cast<char>(inverse[c]);
  }
  return bytes;
}

Regex gpt2_pattern() { return Regex(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"); }

Regex llama3_pattern() {
  return Regex(
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)");
}

Regex qwen2_pattern() {  // as Llama 3's, but every digit alone
  return Regex(
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)");
}

std::vector<std::string> pre_tokenize(const std::vector<PreTokenizerStep>& steps, std::string_view text,
                                      bool at_start) {
  std::vector<std::string> words;
  push(words, text);
  for (const PreTokenizerStep& step : steps) {
    std::vector<std::string> next;
    next.reserve(words.size());
    bool first = at_start;
    for (const std::string& word : words) {
      std::visit(ApplyStep{word, first, next}, step);
      first = false;
    }
    words = std::move(next);
  }
  return words;
}

}  // namespace hesper
