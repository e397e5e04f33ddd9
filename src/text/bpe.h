#pragma once
// Byte-pair encoding of one word: characters -> ids -> the merge of lowest rank, leftmost first, until none applies.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace hesper {

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using Vocabulary = std::unordered_map<std::string, int32_t, StringHash, std::equal_to<>>;

// Ids lie below this, so that a hostile file cannot ask for huge tables.
constexpr int64_t kMaxTokenId = int64_t{1} << 24;

struct BpeOptions {
  bool byte_fallback = false;            // a character without a token becomes its bytes <0x00>..<0xFF>
  bool fuse_unk = false;                 // neighbouring unknown characters make one unk_token
  bool ignore_merges = false;            // a word that is itself a token is not split
  std::optional<std::string> unk_token;  // without one, characters that nothing can spell are dropped
};

class Bpe {
 public:
  using Pair = std::pair<std::string, std::string>;

  // Merges in rank order. std::runtime_error when a part or a product of a merge is not in the vocabulary.
  Bpe(Vocabulary vocabulary, const std::vector<Pair>& merges, BpeOptions options);

  // Merges of a vocabulary whose ids are the ranks (tiktoken): two tokens join when their concatenation is a token.
  static Bpe from_ranks(Vocabulary vocabulary, BpeOptions options);

  // Appends the ids of one word of valid UTF-8.
  void encode(std::string_view word, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    int32_t rank, id;
  };
  struct Symbol {
    int32_t id;
    int64_t previous, next;  // positions, -1 at the ends
    bool alive;
  };

  Bpe(Vocabulary vocabulary, BpeOptions options);
  std::optional<int32_t> find(std::string_view token) const;
  const Merge* merge_of(int32_t left, int32_t right) const;
  std::vector<Symbol> initial_symbols(std::string_view word) const;

  Vocabulary vocabulary_;
  BpeOptions options_;
  std::unordered_map<uint64_t, Merge> merges_;  // left id << 32 | right id
  std::vector<int32_t> byte_ids_;               // (256) with byte_fallback, -1 where there is none
  int32_t unk_id_ = -1;
};

}  // namespace hesper
