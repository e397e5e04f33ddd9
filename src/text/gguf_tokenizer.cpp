// The tokenizer in a GGUF file's metadata: byte-level BPE ("gpt2") or sentencepiece's BPE ("llama").
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "files/gguf.h"
#include "files/printable.h"
#include "text/parts_tokenizer.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace hesper {
namespace {

// Numbers of tokenizer.ggml.token_type, those of sentencepiece's piece types.
enum TokenType : int64_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

constexpr const char *model_key = "tokenizer.ggml.model", *pre_key = "tokenizer.ggml.pre",
                     *tokens_key = "tokenizer.ggml.tokens", *types_key = "tokenizer.ggml.token_type",
                     *scores_key = "tokenizer.ggml.scores", *merges_key = "tokenizer.ggml.merges",
                     *bos_key = "tokenizer.ggml.bos_token_id", *add_bos_key = "tokenizer.ggml.add_bos_token",
                     *add_eos_key = "tokenizer.ggml.add_eos_token";

struct Tokens {
  std::vector<std::string_view> texts;  // by id
  std::vector<int64_t> types;           // (texts.size())
};

Tokens read_tokens(const GgufFields& fields) {
  Tokens tokens{fields.texts(tokens_key), {}};
  const size_t count = tokens.texts.size();
  if (count == 0 || count > static_cast<size_t>(kMaxTokenId)) {
    fields.refuse(tokens_key, fmt::format("is not of 1 to {} tokens", kMaxTokenId));
  }
  tokens.types = fields.has(types_key) ? fields.integers(types_key) : std::vector<int64_t>(count, normal);
  if (tokens.types.size() != count) fields.refuse(types_key, fmt::format("for {} tokens", count));
  for (size_t id = 0; id < count; ++id) {
    if (tokens.types[id] < normal || tokens.types[id] > byte) {
      fields.fail(types_key, fmt::format("of token {} = {} is not known", id, tokens.types[id]));
    }
    if (replace_invalid_utf8(tokens.texts[id]) != tokens.texts[id]) {
      fields.fail(tokens_key, fmt::format("{} = {} is not UTF-8", id, printable(tokens.texts[id])));
    }
  }
  return tokens;
}

// The token before a document, where the file or, without a word of it, its kind of tokenizer wants one.
std::optional<int32_t> read_bos(const GgufFields& fields, const Tokens& tokens, bool fallback) {
  if (fields.boolean_or(add_eos_key, false)) fields.refuse(add_eos_key, "is not supported");
  if (!fields.boolean_or(add_bos_key, fallback)) return std::nullopt;
  return static_cast<int32_t>(fields.integer(bos_key, tokens.texts.size() - 1));
}

// The split that goes by this name in llama.cpp, as the tokenizer.json of its models spells it.
struct Pre {
  std::vector<PreTokenizerStep> steps;
  bool ignore_merges = false, bos = false;
};

Pre read_pre(const GgufFields& fields) {
  const std::string name = fields.text_or(pre_key, "default");
  if (name == "gpt-2") return {{ByteLevelStep{false, gpt2_pattern()}}};
  if (name == "smollm") return {{SplitStep{Regex("\\p{N}")}, ByteLevelStep{false, gpt2_pattern()}}};
  if (name == "llama-bpe" || name == "llama3" || name == "llama-v3") {
    return {{SplitStep{llama3_pattern()}, ByteLevelStep{}}, true, true};
  }
  if (name == "qwen2") return {{SplitStep{qwen2_pattern()}, ByteLevelStep{}}};
  const char* supported = "is not supported (gpt-2, llama-bpe, qwen2, smollm are); --token-ids needs no tokenizer";
  if (!fields.has(pre_key)) fields.fail(pre_key, fmt::format("is missing, which {}", supported));
  fields.refuse(pre_key, supported);
}

std::unique_ptr<Tokenizer> byte_level(const GgufFields& fields) {
  const Tokens tokens = read_tokens(fields);
  Pre pre = read_pre(fields);
  Vocabulary vocabulary;
  std::vector<AddedToken> added;
  vocabulary.reserve(tokens.texts.size());
  for (size_t id = 0; id < tokens.texts.size(); ++id) {
    const auto number = static_cast<int32_t>(id);
    const std::string text(tokens.texts[id]);
    if (text.empty()) fields.fail(tokens_key, fmt::format("{} is empty", id));
    if (!vocabulary.emplace(text, number).second) {
      fields.fail(tokens_key, fmt::format("{} and {} are both {}", vocabulary[text], id, printable(text)));
    }
    const int64_t type = tokens.types[id];
    if (type == control || type == user_defined || type == unknown) added.push_back({.id = number, .content = text});
  }
  std::vector<Bpe::Pair> merges;
  for (const std::string_view merge : fields.texts(merges_key)) {
    const size_t space = merge.find(' ');
    if (space == std::string_view::npos || merge.find(' ', space + 1) != std::string_view::npos) {
      fields.fail(merges_key, fmt::format("{} = {} is not a pair of tokens", merges.size(), printable(merge)));
    }
    merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  const std::optional<int32_t> bos = read_bos(fields, tokens, pre.bos);
  try {
    return std::make_unique<PartsTokenizer>(TokenizerParts{
        .name = "byte-level BPE (GGUF)",
        .added_tokens = std::move(added),
        .normalizer = {},
        .pre_tokenizer = std::move(pre.steps),
        .model = Bpe(std::move(vocabulary), merges, {.ignore_merges = pre.ignore_merges, .unk_token = {}}),
        .decoder_name = "",
        .bos = bos});
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(fmt::format("{}: {}", fields.file(), error.what()));
  }
}

// Fields of a serialised sentencepiece model (protocol buffers): the number shifted by 3, or'ed with the kind.
class Proto {
 public:
  void integer(uint32_t field, uint64_t value) {
    varint(field << 3);
    varint(value);
  }
  void number(uint32_t field, float value) {
    varint(field << 3 | 5);
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) bytes_ += static_cast<char>(bits >> shift & 255);
  }
  void text(uint32_t field, std::string_view value) {
    varint(field << 3 | 2);
    varint(value.size());
    bytes_ += value;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void varint(uint64_t value) {
    for (; value > 127; value >>= 7) bytes_ += static_cast<char>(value | 128);
    bytes_ += static_cast<char>(value);
  }
  std::string bytes_;
};

// llama.cpp joins the pair of highest score first, which is sentencepiece's BPE: the pieces make a model of that kind,
// without normalisation, and the sentencepiece library does the rest.
std::unique_ptr<Tokenizer> sentencepiece(const GgufFields& fields) {
  const Tokens tokens = read_tokens(fields);
  const std::vector<float> scores = fields.floats(scores_key);
  if (scores.size() != tokens.texts.size()) {
    fields.refuse(scores_key, fmt::format("for {} tokens", tokens.texts.size()));
  }
  if (fields.has("tokenizer.ggml.precompiled_charsmap")) {
    fields.fail("tokenizer.ggml.precompiled_charsmap", "is not supported");
  }
  Proto model;
  nlohmann::json special = nlohmann::json::object();
  for (size_t id = 0; id < tokens.texts.size(); ++id) {
    Proto piece;
    piece.text(1, tokens.texts[id]);
    piece.number(2, scores[id]);
    piece.integer(3, static_cast<uint64_t>(tokens.types[id]));
    model.text(1, piece.bytes());
    if (tokens.types[id] == control) special[std::to_string(id)] = {{"content", tokens.texts[id]}};
  }
  constexpr uint64_t bpe = 2;
  Proto trainer;
  trainer.integer(3, bpe);
  trainer.integer(35, std::ranges::find(tokens.types, int64_t{byte}) != tokens.types.end());  // bytes of unknown text
  model.text(2, trainer.bytes());
  Proto normalizer;
  normalizer.text(1, "identity");
  normalizer.integer(3, fields.boolean_or("tokenizer.ggml.add_space_prefix", true));
  normalizer.integer(4, fields.boolean_or("tokenizer.ggml.remove_extra_whitespaces", false));
  normalizer.integer(5, 1);  // spaces are U+2581
  model.text(3, normalizer.bytes());

  const std::optional<int32_t> bos = read_bos(fields, tokens, true);
  nlohmann::json config = {{"add_bos_token", bos.has_value()}, {"added_tokens_decoder", special}};
  if (bos) config["bos_token"] = tokens.texts[static_cast<size_t>(*bos)];
  return parse_sentencepiece(model.bytes(), config.dump(), fields.file(), "GGUF");
}

}  // namespace

std::unique_ptr<Tokenizer> parse_gguf_tokenizer(const Gguf& gguf, const std::string& file) {
  const GgufFields fields(gguf, file);
  const std::string model = fields.text(model_key);
  if (model == "gpt2") return byte_level(fields);
  if (model == "llama") return sentencepiece(fields);
  fields.refuse(model_key, "is not supported (gpt2, llama are); --token-ids needs no tokenizer");
}

}  // namespace hesper
