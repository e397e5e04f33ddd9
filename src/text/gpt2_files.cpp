// Byte-level BPE outside tokenizer.json: vocab.json + merges.txt (GPT-2, OPT), and tiktoken's lines (Llama 3).
#include <fmt/format.h>

#include <charconv>
#include <stdexcept>

#include "text/json_fields.h"
#include "text/parts_tokenizer.h"
#include "text/tokenizer_config.h"

namespace hesper {
namespace {

constexpr size_t kMaxToken = 4096;  // bytes of one tiktoken token

// The next line without its end; false behind the last.
bool next_line(std::string_view& text, std::string_view& line) {
  if (text.empty()) return false;
  const size_t end = text.find('\n');
  line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return true;
}

std::vector<Bpe::Pair> read_merges(std::string_view text, std::string_view name) {
  std::vector<Bpe::Pair> merges;
  std::string_view line;
  for (size_t number = 1; next_line(text, line); ++number) {
    if (line.starts_with("#version") || line.empty()) continue;
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      throw std::runtime_error(fmt::format("{}: merges line {} is not a pair of tokens", name, number));
    }
    merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  return merges;
}

// Contents with the vocabulary's ids; special tokens that the vocabulary does not hold have none and are left out.
std::vector<AddedToken> collect_added_tokens(const TokenizerConfig& config, const Vocabulary& vocabulary) {
  std::vector<AddedToken> tokens = config.added_tokens;
  for (AddedToken token : config.special_tokens) {
    if (token.content.empty()) continue;
    const auto id = find_token({}, vocabulary, token.content);
    if (!id || find_token(tokens, {}, token.content)) continue;
    token.id = *id;
    tokens.push_back(std::move(token));
  }
  return tokens;
}

std::string decode_base64(std::string_view text) {
  std::string bytes;
  uint32_t bits = 0;
  int held = 0;
  if (text.size() % 4 != 0 || text.empty()) return "";
  while (text.ends_with('=')) text.remove_suffix(1);
  for (const char c : text) {
    const size_t digit = std::string_view("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/").find(c);
    if (digit == std::string_view::npos) return "";
    bits = bits << 6 | static_cast<uint32_t>(digit);
    held += 6;
    if (held >= 8) {
      held -= 8;
      bytes += static_cast<char>(bits >> held & 255);
    }
  }
  return bytes;
}

}  // namespace

std::unique_ptr<Tokenizer> parse_vocab_and_merges(std::string_view vocab, std::string_view merges,
                                                  std::string_view config_text, std::string_view name) {
  const nlohmann::json json = parse_json_object(vocab, fmt::format("{}: vocab.json", name));
  const TokenizerConfig config = parse_tokenizer_config(config_text, fmt::format("{}: tokenizer_config.json", name));
  const JsonFields fields(json, fmt::format("{}: vocab.json", name));
  Vocabulary vocabulary;
  vocabulary.reserve(json.size());
  for (const auto& [token, unused] : json.items()) {
    const int64_t id = fields.integer(token);
    if (id < 0 || id >= kMaxTokenId) {
      fields.fail(fmt::format("token '{}' has id {}, outside 0..{}", token, id, kMaxTokenId - 1));
    }
    vocabulary[token] = static_cast<int32_t>(id);
  }
  std::vector<AddedToken> added = collect_added_tokens(config, vocabulary);
  std::optional<int32_t> bos;
  if (config.add_bos_token.value_or(false)) {
    const std::string token = config.bos_token.value_or("<|endoftext|>");
    bos = find_token(added, vocabulary, token);
    if (!bos) fields.fail(fmt::format("bos_token '{}' is not in the vocabulary", token));
  }
  try {
    return std::make_unique<PartsTokenizer>(
        TokenizerParts{.name = "byte-level BPE (vocab.json, merges.txt)",
                       .added_tokens = std::move(added),
                       .normalizer = {},
                       .pre_tokenizer = {ByteLevelStep{config.add_prefix_space, gpt2_pattern()}},
                       .model = Bpe(std::move(vocabulary), read_merges(merges, name), {}),
                       .decoder_name = "",
                       .bos = bos});
  } catch (const std::runtime_error& error) {
    const std::string what = error.what();
    throw std::runtime_error(what.starts_with(name) ? what : fmt::format("{}: {}", name, what));
  }
}

std::unique_ptr<Tokenizer> parse_tiktoken(std::string_view text, std::string_view name) {
  // The file holds ranks only; pattern and special tokens are Llama 3's, the one model family that ships it.
  constexpr int32_t kRanks = 128000;
  Vocabulary vocabulary;
  std::string_view line;
  for (size_t number = 1; next_line(text, line); ++number) {
    if (line.empty()) continue;
    const size_t space = line.find(' ');
    const std::string token = decode_base64(line.substr(0, space));
    int32_t rank = -1;
    if (space != std::string_view::npos) std::from_chars(line.data() + space + 1, line.data() + line.size(), rank);
    if (token.empty() || token.size() > kMaxToken || rank != static_cast<int32_t>(vocabulary.size()) ||
        !vocabulary.emplace(byte_level_encode(token), rank).second) {
      throw std::runtime_error(
          fmt::format("{}: line {} is not base64 text and the next rank {}", name, number, vocabulary.size()));
    }
  }
  if (vocabulary.size() != static_cast<size_t>(kRanks)) {
    throw std::runtime_error(
        fmt::format("{}: {} tiktoken ranks; only Llama 3's {} are supported", name, vocabulary.size(), kRanks));
  }
  std::vector<AddedToken> special;
  const auto add = [&](int32_t offset, const char* content) {
    special.push_back({.id = kRanks + offset, .content = content});
  };
  add(0, "<|begin_of_text|>"), add(1, "<|end_of_text|>");
  add(6, "<|start_header_id|>"), add(7, "<|end_header_id|>"), add(9, "<|eot_id|>");
  const SplitStep split{llama3_pattern()};
  return std::make_unique<PartsTokenizer>(
      TokenizerParts{.name = "byte-level BPE (tiktoken)",
                     .added_tokens = std::move(special),
                     .normalizer = {},
                     .pre_tokenizer = {split, ByteLevelStep{}},
                     .model = Bpe::from_ranks(std::move(vocabulary), {.ignore_merges = true, .unk_token = {}}),
                     .decoder_name = "",
                     .bos = kRanks});
}

}  // namespace hesper
