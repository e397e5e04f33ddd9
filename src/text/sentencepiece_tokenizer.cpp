// Llama 1 and 2, TinyLlama: tokenizer.model read by the sentencepiece library.
#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <stdexcept>

#include "text/parts_tokenizer.h"
#include "text/tokenizer.h"
#include "text/tokenizer_config.h"
#include "text/utf8.h"

namespace hesper {
namespace {

using Processor = sentencepiece::SentencePieceProcessor;

// Special tokens cut the text, and each part is encoded for itself (transformers' `legacy` behaviour).
class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::unique_ptr<Processor> processor, std::vector<AddedToken> special,
                         std::optional<int32_t> bos, std::string_view source)
      : processor_(std::move(processor)),
        finder_(std::move(special)),
        bos_(bos),
        name_(fmt::format("sentencepiece ({})", source)) {}

  std::vector<int32_t> encode(std::string_view bytes) const override {
    const std::string text = replace_invalid_utf8(bytes);
    std::vector<int32_t> ids;
    std::vector<int> part;
    for (const Segment& segment : finder_.split(text)) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
        continue;
      }
      const auto status = processor_->Encode({text.data() + segment.begin, segment.end - segment.begin}, &part);
      if (!status.ok()) throw std::runtime_error(fmt::format("sentencepiece: {}", status.ToString()));
      ids.insert(ids.end(), part.begin(), part.end());
    }
    return ids;
  }

  std::string decode(std::span<const int32_t> ids) const override {
    for (const int32_t id : ids) {
      if (id < 0 || id >= vocab_size()) {
        throw std::invalid_argument(fmt::format("no token has id {} (vocabulary {})", id, vocab_size()));
      }
    }
    std::string text;
    const auto status = processor_->Decode(std::vector<int>(ids.begin(), ids.end()), &text);
    if (!status.ok()) throw std::runtime_error(fmt::format("sentencepiece: {}", status.ToString()));
    return text;
  }

  std::optional<int32_t> bos() const override { return bos_; }
  int64_t vocab_size() const override { return processor_->GetPieceSize(); }
  std::string name() const override { return name_; }

 private:
  std::unique_ptr<Processor> processor_;
  AddedTokenFinder finder_;
  std::optional<int32_t> bos_;
  std::string name_;
};

}  // namespace

std::unique_ptr<Tokenizer> parse_sentencepiece(std::string_view model, std::string_view config_text,
                                               std::string_view name, std::string_view source) {
  const TokenizerConfig config = parse_tokenizer_config(config_text, std::string(name) + "'s tokenizer_config");
  auto processor = std::make_unique<Processor>();
  try {
    const auto status = processor->LoadFromSerializedProto({model.data(), model.size()});
    if (!status.ok()) throw std::runtime_error(status.ToString());
  } catch (const std::exception& error) {  // the library's trie throws its own (an empty piece)
    throw std::runtime_error(fmt::format("{}: not a sentencepiece model: {}", name, error.what()));
  }

  const int32_t size = processor->GetPieceSize();
  std::vector<AddedToken> special;
  const auto add = [&](AddedToken token, int32_t id) {
    token.id = id;
    if (id >= 0 && id < size && !token.content.empty() && !find_token(special, {}, token.content))
      special.push_back(token);
  };
  for (const int id : {processor->unk_id(), processor->bos_id(), processor->eos_id()}) {
    if (id >= 0 && id < size) add({.id = 0, .content = processor->IdToPiece(id)}, id);
  }
  for (const AddedToken& token : config.special_tokens) {
    const int id = processor->PieceToId(token.content);
    if (processor->IdToPiece(id) == token.content) add(token, id);
  }
  for (const AddedToken& token : config.added_tokens) {
    if (token.id >= size) {
      throw std::runtime_error(fmt::format("{}: added token '{}' has id {}, but the model has {} pieces", name,
                                           token.content, token.id, size));
    }
    add(token, token.id);
  }
  std::optional<int32_t> bos;
  if (config.add_bos_token.value_or(true)) {
    const std::string token = config.bos_token.value_or("<s>");
    bos = processor->PieceToId(token);
    if (processor->IdToPiece(*bos) != token) {
      throw std::runtime_error(fmt::format("{}: bos_token '{}' is not in the model", name, token));
    }
  }
  return std::make_unique<SentencePieceTokenizer>(std::move(processor), std::move(special), bos, source);
}

}  // namespace hesper
