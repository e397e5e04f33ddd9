#pragma once
// A tokenizer of parts: added tokens, normalizer, pre-tokenizer, and a model of one word.
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"
#include "text/unigram.h"

namespace hesper {

using WordModel = std::variant<Bpe, Unigram>;

struct TokenizerParts {
  enum class Decoder { byte_level, metaspace, unsupported };
  std::string name;
  std::vector<AddedToken> added_tokens;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  WordModel model;
  Decoder decoder = Decoder::byte_level;
  std::string decoder_name;          // for the refusal
  bool strip_leading_space = false;  // metaspace: the space that the encoder put in front
  std::optional<int32_t> bos;
};

class PartsTokenizer : public Tokenizer {
 public:
  // std::runtime_error when ids clash: two tokens with one id, an added token with two ids, bos outside all.
  explicit PartsTokenizer(TokenizerParts parts);

  std::vector<int32_t> encode(std::string_view text) const override;
  std::string decode(std::span<const int32_t> ids) const override;
  std::optional<int32_t> bos() const override { return parts_.bos; }
  int64_t vocab_size() const override { return vocab_size_; }
  std::string name() const override { return parts_.name; }

 private:
  void encode_word(std::string_view word, std::vector<int32_t>& ids) const;

  TokenizerParts parts_;
  AddedTokenFinder raw_tokens_, normalized_tokens_;
  std::unordered_map<int32_t, std::string> token_of_;
  int64_t vocab_size_ = 0;
};

const Vocabulary& vocabulary_of(const WordModel& model);

// Id of a token among added tokens and vocabulary.
std::optional<int32_t> find_token(const std::vector<AddedToken>& added, const Vocabulary& vocabulary,
                                  std::string_view content);

}  // namespace hesper
