#pragma once
// Unigram model of one word: the pieces of largest sum of scores whose concatenation is the word.
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/bpe.h"

namespace hesper {

struct UnigramOptions {
  std::optional<int32_t> unk_id;
  bool byte_fallback = false;  // an unknown piece becomes its bytes <0x00>..<0xFF> where all of them have a token
};

class Unigram {
 public:
  // Pieces and their scores, a piece's id is its place. std::runtime_error for a piece twice, a score that is not
  // finite, an unknown id outside.
  Unigram(const std::vector<std::pair<std::string, double>>& pieces, UnigramOptions options);

  // Appends the ids of one word of valid UTF-8. A character that no piece begins with counts as unknown, at the lowest
  // score less 10; neighbouring ones are one unknown piece. std::runtime_error where one is met and there is no id for
  // it.
  void encode(std::string_view word, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  void encode_unknown(std::string_view piece, std::vector<int32_t>& ids) const;

  Vocabulary vocabulary_;
  std::vector<double> scores_;
  UnigramOptions options_;
  double unknown_score_ = 0;
  size_t longest_ = 0;  // bytes of the longest piece
};

}  // namespace hesper
