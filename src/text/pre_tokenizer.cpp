#include "text/pre_tokenizer.h"

#include <array>

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

void split(const Regex& pattern, SplitStep::Keep keep, std::string_view text, std::vector<std::string>& words) {
  size_t done = 0;
  for (const auto& [begin, end] : pattern.find_all(text)) {
    if (keep != SplitStep::Keep::matches) push(words, text.substr(done, begin - done));
    if (keep != SplitStep::Keep::gaps) push(words, text.substr(begin, end - begin));
    done = end;
  }
  if (keep != SplitStep::Keep::matches) push(words, text.substr(done));
}

struct ApplyStep {
  std::string_view text;
  bool at_start;
  std::vector<std::string>& words;

  void operator()(const SplitStep& step) const { split(step.pattern, step.keep, text, words); }

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
    split(*step.pattern, SplitStep::Keep::both, source, parts);
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
