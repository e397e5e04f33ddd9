#include "text/corpus.h"

#include <gtest/gtest.h>

#include "temporary_folder.h"
#include "text/utf8.h"

namespace hesper {
namespace {

TEST(Corpus, wikitext2_rows_are_joined_as_the_literature_joins_them) {
  // Python: "\n\n".join(line if line.strip() else "" for line in open(path, encoding="utf-8"))
  EXPECT_EQ(join_wikitext2_rows(" \n = A = \n \n text \n"), "\n\n = A = \n\n\n\n\n text \n");
  EXPECT_EQ(join_wikitext2_rows("a\n\nb"), "a\n\n\n\n\nb");
  EXPECT_EQ(join_wikitext2_rows("a\n"), "a\n");
  EXPECT_EQ(join_wikitext2_rows("a\n \n"), "a\n\n\n");
  EXPECT_EQ(join_wikitext2_rows("a\n\u00a0\u3000\x1c\t\r\nb"), "a\n\n\n\n\nb");
  EXPECT_EQ(join_wikitext2_rows(""), "");
}

TEST(Corpus, a_text_is_taken_as_it_is) {
  const TemporaryFolder folder;
  const std::string text = "one\r\n\n two \n";
  EXPECT_EQ(text_document(folder.write("a.txt", text)), text);
  EXPECT_EQ(text_document(folder.write("b.txt",
                                       "a\xff"
                                       "b")),
            "a\uFFFDb");
}

TEST(Corpus, empty_and_missing_texts_are_errors) {
  const TemporaryFolder folder;
  for (const std::string text : {"", " \n\t\n"}) {
    const auto path = folder.write("empty.txt", text);
    EXPECT_EQ(error_of<std::invalid_argument>([&] { text_document(path); }), path.string() + ": the text is empty");
    EXPECT_THROW(wikitext2_document(path), std::invalid_argument);
  }
  EXPECT_EQ(error_of<std::runtime_error>([&] { wikitext2_document(folder / "wiki.test.raw"); }),
            (folder / "wiki.test.raw").string() + ": cannot open: No such file or directory");
}

// What Python 3.11 gives for bytes.decode("utf-8", errors="replace"): one U+FFFD a maximal ill-formed part.
TEST(Utf8, ill_formed_parts_are_replaced_as_python_does) {
  const std::string r = "\uFFFD";
  EXPECT_EQ(replace_invalid_utf8("a\xff\xfe"
                                 "b"),
            "a" + r + r + "b");
  EXPECT_EQ(replace_invalid_utf8("\xC0\x80"), r + r);                  // overlong
  EXPECT_EQ(replace_invalid_utf8("\xE0\x80\x80"), r + r + r);          // overlong
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80"), r + r + r);          // surrogate
  EXPECT_EQ(replace_invalid_utf8("\xF4\x90\x80\x80"), r + r + r + r);  // beyond U+10FFFF
  EXPECT_EQ(replace_invalid_utf8("\xF0\x9F\xA6"), r);                  // truncated: one part
  EXPECT_EQ(replace_invalid_utf8("\xF0\x9F\xA6"
                                 "a"),
            r + "a");
  EXPECT_EQ(replace_invalid_utf8("\xE2\x82\xE2\x82\xAC"), r + "\u20AC");
  EXPECT_EQ(replace_invalid_utf8("\xC3"), r);
  EXPECT_EQ(replace_invalid_utf8(std::string("\0\x7f", 2)), std::string("\0\x7f", 2));
}

TEST(Utf8, every_scalar_value_comes_back) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, c);
    size_t position = 0;
    ASSERT_EQ(decode_utf8(text, position), c);
    ASSERT_EQ(position, text.size());
    ASSERT_EQ(utf8_length(text[0]), text.size());
    ASSERT_EQ(replace_invalid_utf8(text), text);
  }
}

}  // namespace
}  // namespace hesper
