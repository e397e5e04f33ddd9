#include "text/normalizer.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <cstdlib>
#include <memory>
#include <stdexcept>

#include "text/utf8.h"

namespace hesper {
namespace {

struct Apply {
  const std::string& text;

  std::string operator()(const PrependStep& step) const { return step.text + text; }
  std::string operator()(const ReplaceStep& step) const { return replace_all(text, step.from, step.to); }

  std::string operator()(const ReplacePatternStep& step) const {
    std::string out;
    size_t done = 0;
    for (const auto& [begin, end] : step.pattern.find_all(text)) {
      out.append(text, done, begin - done);
      out += step.to;
      done = end;
    }
    return out.append(text, done);
  }

  std::string operator()(const StripStep& step) const {
    size_t begin = 0, end = text.size();
    while (step.left && begin < end) {
      size_t next = begin;
      if (!is_white_space(decode_utf8(text, next))) break;
      begin = next;
    }
    while (step.right && end > begin) {
      size_t start = end - 1;
      while (start > begin && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
      size_t position = start;
      if (!is_white_space(decode_utf8(text, position))) break;
      end = start;
    }
    return text.substr(begin, end - begin);
  }

  std::string operator()(const NormalFormStep& step) const {
    using Form = NormalFormStep::Form;
    int options = UTF8PROC_STABLE;
    options |= step.form == Form::nfc || step.form == Form::nfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    if (step.form == Form::nfkc || step.form == Form::nfkd) options |= UTF8PROC_COMPAT;
    utf8proc_uint8_t* bytes = nullptr;
    const utf8proc_ssize_t size =
        utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                     &bytes, static_cast<utf8proc_option_t>(options));
    const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(bytes, std::free);
    if (size < 0) throw std::runtime_error(fmt::format("normalization failed: {}", utf8proc_errmsg(size)));
    return {reinterpret_cast<const char*>(bytes), static_cast<size_t>(size)};
  }
};

}  // namespace

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text.size());
  for (size_t begin = 0;;) {
    const size_t hit = text.find(from, begin);
    out += text.substr(begin, hit - begin);
    if (hit == std::string_view::npos) return out;
    out += to;
    begin = hit + from.size();
  }
}

std::string normalize(const std::vector<NormalizerStep>& steps, std::string_view text) {
  std::string out(text);
  for (const NormalizerStep& step : steps) {
    if (out.empty()) break;
    out = std::visit(Apply{out}, step);
  }
  return out;
}

}  // namespace hesper
