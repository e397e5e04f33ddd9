#include "text/unigram.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "text/utf8.h"

namespace hesper {

Unigram::Unigram(const std::vector<std::pair<std::string, double>>& pieces, UnigramOptions options)
    : options_(options) {
  constexpr double unknown_penalty = 10;
  double least = 0;
  for (const auto& [piece, score] : pieces) {
    const auto id = static_cast<int32_t>(scores_.size());
    if (!std::isfinite(score)) throw std::runtime_error(fmt::format("vocab[{}]: its score is not finite", id));
    if (!vocabulary_.emplace(piece, id).second) throw std::runtime_error(fmt::format("vocab[{}] is there twice", id));
    least = scores_.empty() ? score : std::min(least, score);
    scores_.push_back(score);
    longest_ = std::max(longest_, piece.size());
  }
  unknown_score_ = least - unknown_penalty;
  if (options_.unk_id && (*options_.unk_id < 0 || *options_.unk_id >= static_cast<int64_t>(scores_.size())))
    throw std::runtime_error(fmt::format("unk_id {} is outside the {} pieces", *options_.unk_id, scores_.size()));
}

void Unigram::encode(std::string_view word, std::vector<int32_t>& ids) const {
  struct Node {
    double score = 0;
    int32_t id = -1;     // -1: unknown
    int64_t start = -1;  // of the last piece of the best way to here; -1: no way
  };
  std::vector<Node> best(word.size() + 1);
  const auto offer = [&](size_t end, double score, int32_t id, size_t start) {
    Node& node = best[end];
    if (node.start < 0 || score > node.score) node = {score, id, static_cast<int64_t>(start)};
  };
  for (size_t start = 0; start < word.size();) {
    const size_t character = utf8_length(word[start]);
    const double so_far = best[start].score;
    bool single = false;  // a piece of one character begins here
    for (size_t length = 1; length <= std::min(longest_, word.size() - start); ++length) {
      const auto found = vocabulary_.find(word.substr(start, length));
      if (found == vocabulary_.end()) continue;
      offer(start + length, so_far + scores_[static_cast<size_t>(found->second)], found->second, start);
      single |= length == character;
    }
    if (!single) {
      if (!options_.unk_id) throw std::runtime_error("a character without a token, and the model has no unk_id");
      offer(start + character, so_far + unknown_score_, -1, start);
    }
    start += character;
  }

  std::vector<std::pair<size_t, size_t>> pieces;  // from the last to the first; unknown neighbours are one
  bool unknown_before = false;
  for (size_t end = word.size(); end > 0;) {
    const Node& node = best[end];
    const auto start = static_cast<size_t>(node.start);
    const bool unknown = node.id < 0 || node.id == options_.unk_id;
    if (unknown && unknown_before)
      pieces.back().first = start;
    else
      pieces.emplace_back(start, end);
    unknown_before = unknown;
    end = start;
  }
  for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
    const std::string_view text = word.substr(piece->first, piece->second - piece->first);
    if (const auto found = vocabulary_.find(text); found != vocabulary_.end())
      ids.push_back(found->second);
    else
      encode_unknown(text, ids);
  }
}

void Unigram::encode_unknown(std::string_view piece, std::vector<int32_t>& ids) const {
  if (options_.byte_fallback) {
    std::vector<int32_t> bytes;
    for (const char byte : piece) {
      const auto found = vocabulary_.find(fmt::format("<0x{:02X}>", static_cast<unsigned char>(byte)));
      if (found == vocabulary_.end()) break;
      bytes.push_back(found->second);
    }
    if (bytes.size() == piece.size()) {
      ids.insert(ids.end(), bytes.begin(), bytes.end());
      return;
    }
  }
  ids.push_back(*options_.unk_id);
}

}  // namespace hesper
