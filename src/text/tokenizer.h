#pragma once
// Text <-> ids. A tokenizer gives the ids that Hugging Face's gives for the same files.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hesper {

struct Gguf;  // files/gguf.h

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Ids of one document, without BOS. Ill-formed UTF-8 is replaced by U+FFFD first, as Python's errors="replace" does;
  // special tokens written out in the text become their ids; characters that a vocabulary without unk_token cannot
  // spell are dropped (all three as Hugging Face does). std::runtime_error when a split pattern gives up on the text.
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;

  // Text of ids, special tokens written out. std::invalid_argument for an id without a token.
  virtual std::string decode(std::span<const int32_t> ids) const = 0;

  // What this tokenizer puts before a document; nullopt when nothing.
  virtual std::optional<int32_t> bos() const = 0;

  // Largest id + 1.
  virtual int64_t vocab_size() const = 0;

  // Kind and file, for records: "byte-level BPE (tokenizer.json)".
  virtual std::string name() const = 0;
};

// From a model folder: tokenizer.json, else vocab.json + merges.txt, else tokenizer.model (sentencepiece, or Llama 3's
// tiktoken lines), with tokenizer_config.json beside it where there is one; else the one GGUF file. Or from a GGUF file
// that is named itself, whose metadata says everything. BOS of a folder: a template in tokenizer.json's
// post_processor decides; without one tokenizer_config's add_bos_token (default: true for sentencepiece, otherwise
// false). std::runtime_error naming the file and the thing when a file is missing, damaged or not supported.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path);

// The same from bytes; `name` stands in messages, `config` is tokenizer_config.json's text or empty.
std::unique_ptr<Tokenizer> parse_tokenizer_json(std::string_view json, std::string_view config, std::string_view name);
std::unique_ptr<Tokenizer> parse_vocab_and_merges(std::string_view vocab, std::string_view merges,
                                                  std::string_view config, std::string_view name);
// `source` is the kind of file, for Tokenizer::name.
std::unique_ptr<Tokenizer> parse_sentencepiece(std::string_view model, std::string_view config, std::string_view name,
                                               std::string_view source = "tokenizer.model");
std::unique_ptr<Tokenizer> parse_tiktoken(std::string_view lines, std::string_view name);
std::unique_ptr<Tokenizer> parse_gguf_tokenizer(const Gguf& gguf, const std::string& file);

}  // namespace hesper
