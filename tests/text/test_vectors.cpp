// Ids against published vectors and against the counts of WikiText-2 that the literature's tokenizers give.
#include <gtest/gtest.h>

#include "text/corpus.h"
#include "text/shared_data.h"
#include "text/tokenizer.h"
#include "text/vectors.h"
#include "text/windows.h"

namespace hesper {
namespace {

constexpr const char* kOptConfig = R"({"tokenizer_class": "GPT2Tokenizer", "add_bos_token": true,
  "bos_token": {"__type": "AddedToken", "content": "</s>", "normalized": true},
  "pad_token": {"content": "<pad>", "normalized": true}})";

std::unique_ptr<Tokenizer> opt() {
  const TemporaryFolder folder;
  copy_shared("tokenizers/opt-vocab.derived.json", folder / "vocab.json");
  copy_shared("tokenizers/gpt2-vocab.bpe", folder / "merges.txt");
  folder.write("tokenizer_config.json", kOptConfig);
  return load_tokenizer(folder.path);
}

std::unique_ptr<Tokenizer> unpacked_json(const std::string& file) {
  const TemporaryFolder folder;
  unpack(file, folder / "tokenizer.json");
  return load_tokenizer(folder.path);
}

std::unique_ptr<Tokenizer> model_file(const std::string& file) {
  const TemporaryFolder folder;
  copy_shared(file, folder / "tokenizer.model");
  return load_tokenizer(folder.path);
}

std::string wikitext() {
  const TemporaryFolder folder;
  unpack("text/wiki.test.raw.gz", folder / "wiki.test.raw");
  return wikitext2_document(folder / "wiki.test.raw");
}

// Ids of the document led by BOS where there is one, and windows of 2048.
void expect_counts(const Tokenizer& tokenizer, int64_t ids, int64_t windows) {
  const std::vector<int32_t> text = tokenizer.encode(wikitext());
  EXPECT_EQ(static_cast<int64_t>(text.size()) + (tokenizer.bos() ? 1 : 0), ids);
  std::vector<std::string> notes;
  EXPECT_EQ(cut_windows(text, tokenizer.bos(), {}, notes).available, windows);
  EXPECT_TRUE(notes.empty());
}

TEST(Vectors, gpt2) {
  HESPER_NEEDS("vectors/gpt-2.out");
  const TemporaryFolder folder;
  copy_shared("tokenizers/gpt2-encoder.json", folder / "vocab.json");
  copy_shared("tokenizers/gpt2-vocab.bpe", folder / "merges.txt");
  const auto tokenizer = load_tokenizer(folder.path);
  EXPECT_EQ(tokenizer->bos(), std::nullopt);
  EXPECT_EQ(tokenizer->vocab_size(), 50257);
  expect_vectors(*tokenizer, "vectors/gpt-2.out", false);
}

TEST(Vectors, opt_with_its_bos) {
  HESPER_NEEDS("vectors/opt.derived.out");
  const auto tokenizer = opt();
  EXPECT_EQ(tokenizer->bos(), 2);
  expect_vectors(*tokenizer, "vectors/opt.derived.out", true);
  EXPECT_EQ(tokenizer->encode("</s>"), std::vector<int32_t>{2});
}

TEST(Vectors, llama2_sentencepiece) {
  HESPER_NEEDS("vectors/llama-spm.out");
  const auto tokenizer = model_file("tokenizers/llama2-tokenizer.model");
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->vocab_size(), 32000);
  expect_vectors(*tokenizer, "vectors/llama-spm.out", false);
}

TEST(Vectors, llama3_tokenizer_json) {
  HESPER_NEEDS("vectors/llama-bpe.out");
  const auto tokenizer = unpacked_json("tokenizers/llama3_1-tokenizer.json.gz");
  EXPECT_EQ(tokenizer->bos(), 128000);
  EXPECT_EQ(tokenizer->vocab_size(), 128256);
  expect_vectors(*tokenizer, "vectors/llama-bpe.out", false);
}

TEST(Vectors, llama3_tiktoken) {
  HESPER_NEEDS("vectors/llama-bpe.out");
  const auto tokenizer = model_file("tokenizers/llama3-tokenizer.model");
  EXPECT_EQ(tokenizer->bos(), 128000);
  expect_vectors(*tokenizer, "vectors/llama-bpe.out", false);
}

TEST(Vectors, every_input_decodes_to_itself) {
  HESPER_NEEDS("vectors/ggml-vocab.inp");
  const auto byte_level = opt(), llama3 = unpacked_json("tokenizers/llama3_1-tokenizer.json.gz"),
             mistral = unpacked_json("tokenizers/mistral-v0.1-tokenizer.json.gz"),
             llama2 = model_file("tokenizers/llama2-tokenizer.model");
  for (const std::string& text : vector_inputs()) {
    for (const Tokenizer* tokenizer : {byte_level.get(), llama3.get(), mistral.get(), llama2.get()}) {
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text) << tokenizer->name();
    }
  }
}

TEST(WikiText2, opt) {
  HESPER_NEEDS("text/wiki.test.raw.gz");
  expect_counts(*opt(), 287645, 140);
}

TEST(WikiText2, llama2) {
  HESPER_NEEDS("text/wiki.test.raw.gz");
  expect_counts(*model_file("tokenizers/llama2-tokenizer.model"), 341469, 166);
}

TEST(WikiText2, llama3_both_files_agree) {
  HESPER_NEEDS("text/wiki.test.raw.gz");
  const auto json = unpacked_json("tokenizers/llama3_1-tokenizer.json.gz");
  expect_counts(*json, 289077, 141);
  const std::string text = wikitext();
  EXPECT_EQ(json->encode(text), model_file("tokenizers/llama3-tokenizer.model")->encode(text));
}

// A whole document is one word here: the merge queue at its longest.
TEST(WikiText2, mistral_byte_fallback_tokenizer_json) {
  HESPER_NEEDS("text/wiki.test.raw.gz");
  const auto tokenizer = unpacked_json("tokenizers/mistral-v0.1-tokenizer.json.gz");
  EXPECT_EQ(tokenizer->bos(), 1);
  expect_counts(*tokenizer, 334661, 163);
}

TEST(ModelFolders, opt_tiny_and_babyllama) {
  HESPER_NEEDS("models/opt-tiny/vocab.json");
  const auto tiny = load_tokenizer(shared_data("models/opt-tiny"));
  EXPECT_EQ(tiny->bos(), 2);
  EXPECT_EQ(tiny->vocab_size(), 4096);
  const auto baby = load_tokenizer(shared_data("models/babyllama105"));
  EXPECT_EQ(baby->bos(), 1);
  EXPECT_EQ(baby->vocab_size(), 105);
  for (const std::string text : {"Once upon a time, there was a little girl.", "1 < 2\n\tnaïve"}) {
    EXPECT_EQ(tiny->decode(tiny->encode(text)), text);
  }
  EXPECT_EQ(baby->decode(baby->encode("Once upon a time")), "Once upon a time");
}

}  // namespace
}  // namespace hesper
