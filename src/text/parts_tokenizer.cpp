#include "text/parts_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "text/utf8.h"

namespace hesper {
namespace {

constexpr size_t kMaxCachedWord = 256;  // bytes

std::vector<AddedToken> select(const std::vector<AddedToken>& tokens, bool normalized) {
  std::vector<AddedToken> selected;
  for (const AddedToken& token : tokens) {
    if (token.normalized == normalized) selected.push_back(token);
  }
  return selected;
}

// "<0x41>" -> 'A'
std::optional<char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  int value = 0;
  for (const char digit : token.substr(3, 2)) {
    const size_t d = std::string_view("0123456789ABCDEF").find(digit);
    if (d == std::string_view::npos) return std::nullopt;
    value = value * 16 + static_cast<int>(d);
  }
  return static_cast<char>(value);
}

}  // namespace

const Vocabulary& vocabulary_of(const WordModel& model) {
  return std::visit([](const auto& m) -> const Vocabulary& { return m.vocabulary(); }, model);
}

std::optional<int32_t> find_token(const std::vector<AddedToken>& added, const Vocabulary& vocabulary,
                                  std::string_view content) {
  for (const AddedToken& token : added) {
    if (token.content == content) return token.id;
  }
  const auto found = vocabulary.find(content);
  return found == vocabulary.end() ? std::nullopt : std::optional(found->second);
}

PartsTokenizer::PartsTokenizer(TokenizerParts parts)
    : parts_(std::move(parts)), raw_tokens_(select(parts_.added_tokens, false)), normalized_tokens_({}) {
  std::vector<AddedToken> normalized = select(parts_.added_tokens, true);
  for (AddedToken& token : normalized) token.content = normalize(parts_.normalizer, token.content);
  normalized_tokens_ = AddedTokenFinder(std::move(normalized));

  const auto enter = [&](const std::string& token, int32_t id) {
    const auto [entry, fresh] = token_of_.emplace(id, token);
    if (!fresh && entry->second != token) {
      throw std::runtime_error(fmt::format("tokens '{}' and '{}' both have id {}", entry->second, token, id));
    }
    vocab_size_ = std::max<int64_t>(vocab_size_, int64_t{id} + 1);
  };
  const Vocabulary& vocabulary = vocabulary_of(parts_.model);
  token_of_.reserve(vocabulary.size() + parts_.added_tokens.size());
  for (const auto& [token, id] : vocabulary) enter(token, id);
  for (const AddedToken& token : parts_.added_tokens) {
    const auto found = vocabulary.find(token.content);
    if (found != vocabulary.end() && found->second != token.id) {
      throw std::runtime_error(
          fmt::format("added token '{}' has id {}, but {} in the vocabulary", token.content, token.id, found->second));
    }
    enter(token.content, token.id);
  }
  if (parts_.bos && !token_of_.contains(*parts_.bos)) {
    throw std::runtime_error(fmt::format("BOS has id {}, which no token has", *parts_.bos));
  }
}

void PartsTokenizer::encode_word(std::string_view word, std::vector<int32_t>& ids) const {
  std::visit([&](const auto& model) { model.encode(word, ids); }, parts_.model);
}

std::vector<int32_t> PartsTokenizer::encode(std::string_view bytes) const {
  const std::string text = replace_invalid_utf8(bytes);
  std::vector<int32_t> ids;
  // A word's ids lie in `ids` where it first stood.
  std::unordered_map<std::string, std::pair<size_t, size_t>> seen;
  const auto encode_cached = [&](std::string& word) {
    if (word.size() > kMaxCachedWord) return encode_word(word, ids);
    if (const auto found = seen.find(word); found != seen.end()) {
      for (size_t i = found->second.first; i < found->second.second; ++i) ids.push_back(ids[i]);
      return;
    }
    const size_t begin = ids.size();
    encode_word(word, ids);
    seen.emplace(std::move(word), std::pair(begin, ids.size()));
  };
  for (const Segment& outer : raw_tokens_.split(text)) {
    if (outer.id >= 0) {
      ids.push_back(outer.id);
      continue;
    }
    const std::string part =
        normalize(parts_.normalizer, std::string_view(text).substr(outer.begin, outer.end - outer.begin));
    for (const Segment& inner : normalized_tokens_.split(part)) {
      if (inner.id >= 0) {
        ids.push_back(inner.id);
        continue;
      }
      const bool at_start = outer.begin == 0 && inner.begin == 0;
      const std::string_view piece = std::string_view(part).substr(inner.begin, inner.end - inner.begin);
      for (std::string& word : pre_tokenize(parts_.pre_tokenizer, piece, at_start)) encode_cached(word);
    }
  }
  return ids;
}

std::string PartsTokenizer::decode(std::span<const int32_t> ids) const {
  if (parts_.decoder == TokenizerParts::Decoder::unsupported) {
    throw std::runtime_error(fmt::format("{}: the decoder {} is not supported", parts_.name, parts_.decoder_name));
  }
  std::string bytes;
  for (const int32_t id : ids) {
    const auto found = token_of_.find(id);
    if (found == token_of_.end()) {
      throw std::invalid_argument(fmt::format("{}: no token has id {} (vocabulary {})", parts_.name, id, vocab_size_));
    }
    const std::string& token = found->second;
    if (parts_.decoder == TokenizerParts::Decoder::byte_level) {
      bytes += byte_level_decode(token).value_or(token);
    } else if (const auto byte = fallback_byte(token)) {
      bytes += *byte;
    } else {
      bytes += replace_all(token, "\u2581", " ");
    }
  }
  if (parts_.strip_leading_space && bytes.starts_with(' ')) bytes.erase(0, 1);
  return replace_invalid_utf8(bytes);
}

}  // namespace hesper
