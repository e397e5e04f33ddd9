#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <array>
#include <stdexcept>

#include "text/utf8.h"

namespace hesper {
namespace {

// Unicode White_Space inside a class. PCRE2's own \s also takes U+180E.
constexpr std::string_view kSpace = "\\p{Z}\\t-\\r\\x{85}";
constexpr size_t kMaxPattern = 65536;

[[noreturn]] void refuse(std::string_view pattern, const std::string& what) {
  throw std::runtime_error(fmt::format("{} is not supported in the pattern {}", what, pattern.substr(0, 200)));
}

}  // namespace

std::string oniguruma_to_pcre2(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\') {
      const char e = i + 1 < pattern.size() ? pattern[i + 1] : '\0';
      ++i;
      if (e == 's') {
        out += in_class ? std::string(kSpace) : fmt::format("[{}]", kSpace);
      } else if (e == 'S' && !in_class) {
        out += fmt::format("[^{}]", kSpace);
      } else if (e == 'x' && (i + 1 >= pattern.size() || pattern[i + 1] != '{')) {
        refuse(pattern, "\\x without braces");
      } else if (std::string_view("pPrntdx").find(e) != std::string_view::npos ||
                 (e > ' ' && e < 127 && !std::isalnum(e))) {
        out += {'\\', e};
      } else {
        refuse(pattern, fmt::format("the escape \\{}{}", e == '\0' ? ' ' : e, in_class ? " in a class" : ""));
      }
    } else if (in_class) {
      if (c == '[') refuse(pattern, "a class inside a class");
      if (c == '&' && pattern.substr(i, 2) == "&&") refuse(pattern, "class intersection &&");
      in_class = c != ']';
      out += c;
    } else if (c == '[') {
      in_class = true;
      out += c;
      if (pattern.substr(i + 1, 1) == "^") out += pattern[++i];
      if (pattern.substr(i + 1, 1) == "]") refuse(pattern, "a class that starts with ]");
    } else if (c == '^' || c == '$') {
      refuse(pattern, fmt::format("the anchor {}", c));
    } else {
      out += c;
    }
  }
  if (in_class) refuse(pattern, "a class without its end");
  return out;
}

struct Regex::Program {
  pcre2_code* code = nullptr;
  Program() = default;
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() { pcre2_code_free(code); }
};

Regex::Regex(std::string_view pattern) : pattern_(pattern) {
  if (pattern.size() > kMaxPattern) {
    throw std::runtime_error(fmt::format("a pattern of {} bytes, more than {}", pattern.size(), kMaxPattern));
  }
  const std::string translated = oniguruma_to_pcre2(pattern);
  auto program = std::make_shared<Program>();
  int error = 0;
  PCRE2_SIZE offset = 0;
  program->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (program->code == nullptr) {
    std::array<PCRE2_UCHAR, 256> message{};
    pcre2_get_error_message(error, message.data(), message.size());
    throw std::runtime_error(
        fmt::format("bad pattern {}: {}", pattern.substr(0, 200), reinterpret_cast<const char*>(message.data())));
  }
  pcre2_jit_compile(program->code, PCRE2_JIT_COMPLETE);  // without JIT the interpreter gives the same matches
  program_ = std::move(program);
}

std::vector<Match> Regex::find_all(std::string_view text) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(program_->code, nullptr), pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  const std::unique_ptr<pcre2_jit_stack, decltype(&pcre2_jit_stack_free)> stack(
      pcre2_jit_stack_create(size_t{1} << 15, size_t{1} << 23, nullptr), pcre2_jit_stack_free);
  if (!data || !context || !stack) throw std::bad_alloc();
  pcre2_jit_stack_assign(context.get(), nullptr, stack.get());

  std::vector<Match> matches;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  for (size_t start = 0; start < text.size();) {
    const int result =
        pcre2_match(program_->code, subject, text.size(), start, PCRE2_NO_UTF_CHECK, data.get(), context.get());
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      std::array<PCRE2_UCHAR, 256> message{};
      pcre2_get_error_message(result, message.data(), message.size());
      throw std::runtime_error(fmt::format("the pattern {} failed at byte {} of the text: {}", pattern_.substr(0, 200),
                                           start, reinterpret_cast<const char*>(message.data())));
    }
    const PCRE2_SIZE* span = pcre2_get_ovector_pointer(data.get());
    matches.push_back({span[0], span[1]});
    // After an empty match the search goes on one code point further.
    start = span[1] > span[0] || span[1] >= text.size() ? span[1] : span[1] + utf8_length(text[span[1]]);
    if (span[1] == span[0] && span[1] >= text.size()) break;
  }
  return matches;
}

}  // namespace hesper
