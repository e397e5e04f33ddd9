// Ids of tokenizers out of GGUF metadata against llama.cpp's own vectors and the same models' other files.
#include <gtest/gtest.h>

#include "files/gguf.h"
#include "files/gguf_bytes.h"
#include "text/corpus.h"
#include "text/shared_data.h"
#include "text/tokenizer.h"
#include "text/vectors.h"

namespace hesper {
namespace {

using namespace gguf_bytes;

TEST(GgufTokenizer, gpt2_gives_llama_cpps_ids) {
  HESPER_NEEDS("tokenizers/ggml-vocab-gpt-2.gguf");
  const auto tokenizer = load_tokenizer(shared_data("tokenizers/ggml-vocab-gpt-2.gguf"));
  EXPECT_EQ(tokenizer->name(), "byte-level BPE (GGUF)");
  EXPECT_EQ(tokenizer->bos(), std::nullopt);
  EXPECT_EQ(tokenizer->vocab_size(), 50257);
  expect_vectors(*tokenizer, "vectors/gpt-2.out", false);
}

TEST(GgufTokenizer, llama_gives_llama_cpps_ids_and_those_of_tokenizer_model) {
  HESPER_NEEDS("tokenizers/ggml-vocab-llama-spm.gguf");
  const auto tokenizer = load_tokenizer(shared_data("tokenizers/ggml-vocab-llama-spm.gguf"));
  EXPECT_EQ(tokenizer->name(), "sentencepiece (GGUF)");
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->vocab_size(), 32000);
  expect_vectors(*tokenizer, "vectors/llama-spm.out", false);
  HESPER_NEEDS("tokenizers/llama2-tokenizer.model");
  const TemporaryFolder folder;
  copy_shared("tokenizers/llama2-tokenizer.model", folder / "tokenizer.model");
  const auto other = load_tokenizer(folder.path);
  const std::string text = read_file(shared_data("text/tinystories_sample.txt")) + " <s>x</s> \xf0\x9f\xa6\x99 \n\n  y";
  EXPECT_EQ(tokenizer->encode(text), other->encode(text));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), other->decode(other->encode(text)));
}

// Bytes as tokens 0..255 in GPT-2's spelling, then "he", "<s>" (control), "  " (user defined).
std::vector<std::string> small(const std::string& model, const std::string& pre,
                               const std::vector<std::string>& more = {}) {
  std::vector<std::string> tokens;
  std::vector<int32_t> types(259, 1);
  for (char32_t b = 0, next = 256; b < 256; ++b) {
    const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    const char32_t c = printable ? b : next++;
    tokens.push_back(c < 128 ? std::string(1, static_cast<char>(c))
                             : std::string{static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))});
  }
  tokens.insert(tokens.end(), {"he", "<s>", "1"});
  tokens.back() = "12";
  types[257] = 3;
  std::vector<std::string> metadata = {string("tokenizer.ggml.model", model), texts("tokenizer.ggml.tokens", tokens),
                                       integers("tokenizer.ggml.token_type", types),
                                       texts("tokenizer.ggml.merges", {"h e", "1 2"}),
                                       u32("tokenizer.ggml.bos_token_id", 257)};
  if (!pre.empty()) metadata.push_back(string("tokenizer.ggml.pre", pre));
  metadata.insert(metadata.end(), more.begin(), more.end());
  return metadata;
}

std::unique_ptr<Tokenizer> tokenizer_of(const std::vector<std::string>& metadata) {
  const std::string bytes = file(metadata);
  return parse_gguf_tokenizer(parse(bytes), "F");
}

std::string refusal(const std::vector<std::string>& metadata) {
  return error_of<std::runtime_error>([&] { tokenizer_of(metadata); });
}

TEST(GgufTokenizer, pre_decides_where_words_end) {
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(tokenizer_of(small("gpt2", "gpt-2"))->encode("he12<s>"), (Ids{256, 258, 257}));
  EXPECT_EQ(tokenizer_of(small("gpt2", "smollm"))->encode("he12<s>"), (Ids{256, '1', '2', 257}));
  EXPECT_EQ(tokenizer_of(small("gpt2", "qwen2"))->encode("he12<s>"), (Ids{256, '1', '2', 257}));
  EXPECT_EQ(tokenizer_of(small("gpt2", "llama-bpe"))->encode("he12<s>"), (Ids{256, 258, 257}));
}

TEST(GgufTokenizer, bos_by_flag_or_by_kind) {
  EXPECT_EQ(tokenizer_of(small("gpt2", "gpt-2"))->bos(), std::nullopt);
  EXPECT_EQ(tokenizer_of(small("gpt2", "llama-bpe"))->bos(), 257);
  EXPECT_EQ(tokenizer_of(small("gpt2", "gpt-2", {boolean("tokenizer.ggml.add_bos_token", true)}))->bos(), 257);
  EXPECT_EQ(tokenizer_of(small("gpt2", "llama-bpe", {boolean("tokenizer.ggml.add_bos_token", false)}))->bos(),
            std::nullopt);
}

TEST(GgufTokenizer, refuses_by_name) {
  EXPECT_EQ(refusal({}), "F: tokenizer.ggml.model is missing");
  EXPECT_EQ(refusal(small("t5", "")),
            "F: tokenizer.ggml.model = \"t5\" is not supported (gpt2, llama are); --token-ids needs no tokenizer");
  EXPECT_EQ(refusal(small("gpt2", "tekken")),
            "F: tokenizer.ggml.pre = \"tekken\" is not supported (gpt-2, llama-bpe, qwen2, smollm are); --token-ids "
            "needs no tokenizer");
  EXPECT_EQ(
      refusal(small("gpt2", "")),
      "F: tokenizer.ggml.pre is missing, which is not supported (gpt-2, llama-bpe, qwen2, smollm are); --token-ids "
      "needs no tokenizer");
  EXPECT_EQ(refusal(small("gpt2", "gpt-2", {boolean("tokenizer.ggml.add_eos_token", true)})),
            "F: tokenizer.ggml.add_eos_token = true is not supported");
  EXPECT_EQ(refusal(small("llama", "")), "F: tokenizer.ggml.scores is missing");
  EXPECT_EQ(refusal(small("llama", "", {floats("tokenizer.ggml.scores", {1})})),
            "F: tokenizer.ggml.scores = a list of 1 for 259 tokens");
  const std::string model = string("tokenizer.ggml.model", "gpt2"), pre = string("tokenizer.ggml.pre", "gpt-2"),
                    merges = texts("tokenizer.ggml.merges", {});
  EXPECT_EQ(refusal({model, pre, merges, texts("tokenizer.ggml.tokens", {"a", "a"})}),
            "F: tokenizer.ggml.tokens 0 and 1 are both \"a\"");
  EXPECT_EQ(refusal({model, pre, merges, texts("tokenizer.ggml.tokens", {})}),
            "F: tokenizer.ggml.tokens = a list of 0 is not of 1 to 16777216 tokens");
  EXPECT_EQ(refusal({model, pre, merges, texts("tokenizer.ggml.tokens", {"\xff"})}),
            "F: tokenizer.ggml.tokens 0 = \"\\ufffd\" is not UTF-8");
  EXPECT_EQ(
      refusal({model, pre, merges, texts("tokenizer.ggml.tokens", {"a"}), integers("tokenizer.ggml.token_type", {9})}),
      "F: tokenizer.ggml.token_type of token 0 = 9 is not known");
  EXPECT_EQ(refusal({model, pre, texts("tokenizer.ggml.tokens", {"a"}), texts("tokenizer.ggml.merges", {"a"})}),
            "F: tokenizer.ggml.merges 0 = \"a\" is not a pair of tokens");
  EXPECT_EQ(refusal({model, pre, texts("tokenizer.ggml.tokens", {"a"}), texts("tokenizer.ggml.merges", {"a b"})}),
            "F: merge 0 ('a' 'b') needs the token 'b', which is not in the vocabulary");
}

}  // namespace
}  // namespace hesper
