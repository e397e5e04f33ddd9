#pragma once
// Tokens that are cut out of the text before anything else looks at it.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hesper {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool lstrip = false, rstrip = false;  // take the white space on that side along
  bool normalized = false;              // looked for after the normalizer, otherwise before it
};

struct Segment {
  int32_t id;  // of an added token, or -1 for text
  size_t begin, end;
};

// Leftmost-longest search for a set of contents.
class AddedTokenFinder {
 public:
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);
  std::vector<Segment> split(std::string_view text) const;  // covers the text, no empty segments of text

 private:
  std::vector<AddedToken> tokens_;
  std::array<std::vector<size_t>, 256> by_first_byte_;  // indices into tokens_, longest content first
};

}  // namespace hesper
