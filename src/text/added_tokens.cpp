#include "text/added_tokens.h"

#include <algorithm>

#include "text/utf8.h"

namespace hesper {
namespace {

// Start of the run of white space that ends at `end`, not before `limit`.
size_t space_before(std::string_view text, size_t limit, size_t end) {
  while (end > limit) {
    size_t start = end - 1;
    while (start > limit && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    size_t position = start;
    if (!is_white_space(decode_utf8(text, position))) break;
    end = start;
  }
  return end;
}

size_t space_after(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    size_t position = begin;
    if (!is_white_space(decode_utf8(text, position))) break;
    begin = position;
  }
  return begin;
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i].content.empty()) continue;
    by_first_byte_[static_cast<unsigned char>(tokens_[i].content[0])].push_back(i);
  }
  for (std::vector<size_t>& indices : by_first_byte_) {
    std::stable_sort(indices.begin(), indices.end(),
                     [&](size_t a, size_t b) { return tokens_[a].content.size() > tokens_[b].content.size(); });
  }
}

std::vector<Segment> AddedTokenFinder::split(std::string_view text) const {
  std::vector<Segment> segments;
  size_t done = 0;  // everything before is in segments
  for (size_t i = 0; i < text.size();) {
    const std::vector<size_t>& candidates = by_first_byte_[static_cast<unsigned char>(text[i])];
    const auto hit = std::find_if(candidates.begin(), candidates.end(),
                                  [&](size_t c) { return text.substr(i).starts_with(tokens_[c].content); });
    if (hit == candidates.end()) {
      ++i;
      continue;
    }
    const AddedToken& token = tokens_[*hit];
    const size_t begin = token.lstrip ? space_before(text, done, i) : std::max(i, done);
    const size_t end = token.rstrip ? space_after(text, i + token.content.size()) : i + token.content.size();
    if (begin > done) segments.push_back({-1, done, begin});
    segments.push_back({token.id, begin, end});
    done = end;
    i = end;
  }
  if (done < text.size()) segments.push_back({-1, done, text.size()});
  return segments;
}

}  // namespace hesper
