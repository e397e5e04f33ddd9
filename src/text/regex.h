#pragma once
// The split patterns of tokenizer.json (Oniguruma's syntax) on PCRE2. Patterns are translated where the two differ in
// meaning (\s) and refused by name where they differ in a way that is not translated (\w, \h, ^, $, class arithmetic).
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace hesper {

struct Match {
  size_t begin, end;  // bytes, end exclusive
};

class Regex {
 public:
  // std::runtime_error when the pattern is not supported.
  explicit Regex(std::string_view pattern);

  // All matches from left to right. `text` must be valid UTF-8. std::runtime_error when the matcher gives up.
  std::vector<Match> find_all(std::string_view text) const;

 private:
  struct Program;
  std::shared_ptr<const Program> program_;
  std::string pattern_;
};

// The translation alone. std::runtime_error as above.
std::string oniguruma_to_pcre2(std::string_view pattern);

}  // namespace hesper
