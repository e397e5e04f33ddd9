#include "text/ids_cache.h"

#include <gtest/gtest.h>

#include "temporary_folder.h"
#include "text/npy.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;

// Counts how often it is asked.
struct CountingTokenizer : Tokenizer {
  mutable int asked = 0;
  std::vector<int32_t> encode(std::string_view text) const override {
    ++asked;
    return {static_cast<int32_t>(text.size()), text.empty() ? 0 : text[0], 7};
  }
  std::string decode(std::span<const int32_t>) const override { return ""; }
  std::optional<int32_t> bos() const override { return std::nullopt; }
  int64_t vocab_size() const override { return 1 << 30; }
  std::string name() const override { return "counting"; }
};

TEST(IdsCache, KeepsIdsByTokenizerAndText) {
  const TemporaryFolder folder;
  const fs::path model = folder / "model", cache = folder / "cache";
  fs::create_directory(model);
  write_bytes(model / "tokenizer.json", "{}");
  const CountingTokenizer tokenizer;
  const std::string text(least_cached_bytes, 'a');
  const auto encode = [&](const std::string& of) { return encode_cached(tokenizer, model, of, cache); };
  const std::vector<int32_t> ids = encode(text);
  EXPECT_EQ(ids, tokenizer.encode(text));
  EXPECT_EQ(tokenizer.asked, 2);
  EXPECT_EQ(encode(text), ids);
  EXPECT_EQ(tokenizer.asked, 2);

  EXPECT_NE(encode("b" + text), ids);  // another text
  EXPECT_EQ(tokenizer.asked, 3);
  write_bytes(model / "tokenizer.json", "{ }");  // another tokenizer
  encode(text);
  EXPECT_EQ(tokenizer.asked, 4);
  write_bytes(model / "tokenizer_config.json", "{}");  // also by its configuration
  encode(text);
  EXPECT_EQ(tokenizer.asked, 5);

  for (const auto& entry : fs::directory_iterator(cache)) write_bytes(entry.path(), "damaged");
  EXPECT_EQ(encode(text), ids);
  EXPECT_EQ(tokenizer.asked, 6);
  EXPECT_EQ(encode(text), ids);
  EXPECT_EQ(tokenizer.asked, 6);
}

TEST(IdsCache, ShortTextsAndFoldersThatCannotBeWritten) {
  const TemporaryFolder folder;
  write_bytes(folder / "tokenizer.json", "{}");
  const CountingTokenizer tokenizer;
  encode_cached(tokenizer, folder.path, "short", folder / "cache");
  EXPECT_FALSE(fs::exists(folder / "cache"));
  const std::string text(least_cached_bytes, 'a');
  write_bytes(folder / "file", "");
  EXPECT_EQ(encode_cached(tokenizer, folder.path, text, folder / "file").size(), 3U);
  const fs::path none = folder / "none";
  fs::create_directory(none);
  encode_cached(tokenizer, none, text, folder / "cache");
  EXPECT_FALSE(fs::exists(folder / "cache"));
}

}  // namespace
}  // namespace hesper
