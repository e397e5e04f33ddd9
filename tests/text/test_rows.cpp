// Texts in rows: Parquet, JSON lines, and gzip around them.
#include "text/rows.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <span>

#include "files/gzip.h"
#include "temporary_folder.h"
#include "text/corpus.h"
#include "text/parquet.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;

std::string gzipped(const std::string& text) {
  z_stream stream = {};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string unpacked(const std::string& bytes, size_t limit = 1 << 20) {
  return gunzip(std::as_bytes(std::span(bytes)), "a.gz", limit);
}

TEST(Gzip, MembersAndDamage) {
  std::string text(300'000, '\0');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i % 251 * (i % 7));
  EXPECT_EQ(unpacked(gzipped(text)), text);
  EXPECT_EQ(unpacked(gzipped("a") + gzipped("") + gzipped("b")), "ab");
  EXPECT_EQ(error_of<std::runtime_error>([&] { unpacked(gzipped(text), 299'999); }),
            "a.gz: holds more than 299999 bytes");
  const std::string whole = gzipped(text);
  EXPECT_EQ(error_of<std::runtime_error>([&] { unpacked(whole.substr(0, whole.size() - 1)); }),
            "a.gz: the gzip data ends early");
  EXPECT_EQ(error_of<std::runtime_error>([&] { unpacked(""); }), "a.gz: the gzip data ends early");
  EXPECT_EQ(error_of<std::runtime_error>([&] { unpacked("plain text, no gzip"); }), "a.gz: not gzip data, or damaged");
  std::string changed = whole;
  changed[changed.size() - 6] ^= 1;  // the checksum
  EXPECT_EQ(error_of<std::runtime_error>([&] { unpacked(changed); }), "a.gz: not gzip data, or damaged");
}

TEST(Rows, JsonLines) {
  const std::string lines = "{\"text\": \"one\\n\", \"id\": 1}\r\n\n  {\"text\": null}\n{\"text\": \"caf\\u00e9\"}";
  EXPECT_EQ(json_lines_column(lines, "text", "a.jsonl"), (std::vector<std::string>{"one\n", "", "café"}));
  const auto refusal = [](const std::string& text) {
    return error_of<std::runtime_error>([&] { json_lines_column(text, "text", "a.jsonl"); });
  };
  EXPECT_EQ(refusal("{\"text\": \"\"}\n{\"text\""), "a.jsonl: line 2: not JSON");
  EXPECT_EQ(refusal("[1]"), "a.jsonl: line 1: not a JSON object");
  EXPECT_EQ(refusal("{\"body\": \"x\", \"n\": 1}"),
            "a.jsonl: line 1: no text named \"text\"; there are \"body\" (--text-column)");
  EXPECT_EQ(refusal("{\"text\": 5}"), "a.jsonl: line 1: no text named \"text\"; there is none (--text-column)");
  EXPECT_EQ(refusal(std::string(1'000'000, '[')), "a.jsonl: line 1: not JSON");
}

TEST(Rows, DocumentsOfSeveralFiles) {
  const TemporaryFolder folder;
  const fs::path one = folder.write("a.jsonl", "{\"body\": \"one\"}\n{\"body\": \"two\"}\n");
  const fs::path two = folder.write("b.json.gz", gzipped("{\"body\": \"three\"}\n"));
  const std::vector<fs::path> files = {one, two};
  EXPECT_EQ(text_document(files, "body"), "one\n\ntwo\n\nthree");
  EXPECT_EQ(text_document(folder.write("c.txt.gz", gzipped("plain\n\ntext\n"))), "plain\n\ntext\n");
  EXPECT_EQ(error_of<std::invalid_argument>([&] { text_document(folder.write("d.jsonl", "\n")); }),
            (folder / "d.jsonl").string() + ": the text is empty");
}

// The seeds of the fuzz target, which pyarrow wrote (fuzz/make_parquet_seeds.py).
TEST(Rows, Parquet) {
  if (!reads_parquet()) GTEST_SKIP() << "this build has no Arrow";
  std::vector<std::string> rows;
  for (int i = 0; i < 3; ++i) rows.insert(rows.end(), {"", " = Title = \n", "", "café \n", "", "last"});
  for (const char* name : {"snappy", "plain", "zstd_v2_pages", "gzip_groups", "delta", "required"}) {
    EXPECT_EQ(read_rows(fmt::format("{}/fuzz/corpus/parquet/good_{}.parquet", HESPER_SOURCE_DIR, name), "text"), rows)
        << name;
  }
  const auto refusal = [](const std::string& name, const std::string& column = "text") {
    const std::string file = fmt::format("{}/fuzz/corpus/parquet/{}.parquet", HESPER_SOURCE_DIR, name);
    const std::string message = error_of<std::runtime_error>([&] { read_rows(file, column); });
    EXPECT_TRUE(message.starts_with(file + ": ")) << message;
    return message.substr(std::min(message.size(), file.size() + 2));
  };
  EXPECT_EQ(refusal("bad_other_column"), "no column of texts named \"text\"; there are \"words\" (--text-column)");
  EXPECT_EQ(refusal("bad_numbers"), "no column of texts named \"text\"; there is none (--text-column)");
  EXPECT_EQ(refusal("good_snappy", "id"), "no column of texts named \"id\"; there are \"text\" (--text-column)");
  for (const char* name : {"bad_half", "bad_footer", "bad_length"}) {
    EXPECT_TRUE(refusal(name).starts_with("not a Parquet file to read: ")) << refusal(name);
  }
}

TEST(Rows, ParquetWithoutArrow) {
  if (reads_parquet()) GTEST_SKIP() << "this build has Arrow";
  EXPECT_NE(error_of<std::runtime_error>([] { parquet_column({}, "text", "a.parquet", 1); }).find("make setup"),
            std::string::npos);
}

TEST(Rows, WikitextsRowsAreItsLines) {
  if (!reads_parquet()) GTEST_SKIP() << "this build has no Arrow";
  const TemporaryFolder folder;
  std::string raw;
  for (int i = 0; i < 3; ++i) raw += " \n = Title = \n\ncafé \n \nlast\n";
  const fs::path parquet = fmt::format("{}/fuzz/corpus/parquet/good_required.parquet", HESPER_SOURCE_DIR);
  std::string expected = wikitext2_document(folder.write("wiki.test.raw", raw));
  for (size_t at = 0; (at = expected.find("last\n", at)) != std::string::npos; at += 4) {
    expected.erase(at + 4, 1);  // which the rows lack
  }
  EXPECT_EQ(wikitext2_document(parquet), expected);
}

}  // namespace
}  // namespace hesper
