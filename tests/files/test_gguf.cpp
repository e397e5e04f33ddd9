#include "files/gguf.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "files/gguf_bytes.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

using namespace gguf_bytes;

std::string refusal(const std::string& bytes) {
  return error_of<std::runtime_error>([&] { parse(bytes); });
}

std::string tensor_refusal(const std::vector<std::string>& tensors, size_t data = 64) {
  return refusal(file({}, tensors, std::string(data, '\0')));
}

TEST(Gguf, reads_values_of_every_kind) {
  const std::string bytes = file({
      text("u8") + little(0, 4) + "\xff",
      text("i8") + little(1, 4) + "\xff",
      text("u16") + little(2, 4) + "\xfe\xff",
      text("i16") + little(3, 4) + "\xfe\xff",
      u32("u32", 7),
      text("i32") + little(5, 4) + little(~uint64_t{0}, 4),
      f32("f32", 1e-5F),
      boolean("yes", true),
      string("text", "x y"),
      texts("texts", {"a", "", "bc"}),
      text("u64") + little(10, 4) + little(uint64_t{1} << 40, 8),
      text("i64") + little(11, 4) + little(~uint64_t{0}, 8),
      text("f64") + little(12, 4) + little(std::bit_cast<uint64_t>(0.1), 8),
      integers("ints", {-1, 2}),
      floats("floats", {0.5F}),
  });
  for (const uint32_t version : {2u, 3u}) {
    std::string versioned = bytes;
    versioned[4] = static_cast<char>(version);
    const Gguf gguf = parse(versioned);
    EXPECT_EQ(gguf.version, version);
    const GgufFields fields(gguf, "F");
    EXPECT_EQ(fields.integer("u8", 1000), 255u);
    EXPECT_EQ(std::get<int64_t>(gguf.metadata.find("i8")->second), -1);
    EXPECT_EQ(fields.integer("u16", 1 << 20), 65534u);
    EXPECT_EQ(std::get<int64_t>(gguf.metadata.find("i16")->second), -2);
    EXPECT_EQ(fields.integer("u32", 7), 7u);
    EXPECT_EQ(fields.integer("u64", ~uint64_t{0}), uint64_t{1} << 40);
    EXPECT_EQ(fields.number("f32"), 1e-5);  // not the 9.99999974e-06 that the float is
    EXPECT_EQ(fields.number("f64"), 0.1);
    EXPECT_TRUE(fields.boolean_or("yes", false));
    EXPECT_EQ(fields.text("text"), "x y");
    EXPECT_EQ(fields.texts("texts"), (std::vector<std::string_view>{"a", "", "bc"}));
    EXPECT_EQ(fields.integers("ints"), (std::vector<int64_t>{-1, 2}));
    EXPECT_EQ(fields.floats("floats"), std::vector<float>{0.5F});
    const auto refused = [&](auto&& call) { return error_of<std::runtime_error>(call); };
    EXPECT_EQ(refused([&] { fields.integer("u32", 6); }), "F: u32 = 7 is not an integer from 0 to 6");
    EXPECT_EQ(refused([&] { fields.integer("i8", 6); }), "F: i8 = -1 is not an integer from 0 to 6");
    EXPECT_EQ(refused([&] { fields.text("u32"); }), "F: u32 = 7 is not a text");
    EXPECT_EQ(refused([&] { fields.number("text"); }), "F: text = \"x y\" is not a number");
    EXPECT_EQ(refused([&] { fields.texts("ints"); }), "F: ints = a list of 2 is not a list of texts");
    EXPECT_EQ(refused([&] { fields.text("none"); }), "F: none is missing");
  }
}

TEST(Gguf, refuses_heads_by_name) {
  EXPECT_EQ(refusal("GGML"), "F: not a GGUF file: its first four bytes are \"GGML\"");
  EXPECT_EQ(refusal(""), "F: not a GGUF file: its first four bytes are \"\"");
  EXPECT_EQ(refusal("GGUF" + little(1, 4) + std::string(16, '\0')), "F: GGUF version 1, versions 2 and 3 are read");
  EXPECT_EQ(refusal("GGUF" + little(0x03000000, 4)), "F: big-endian, only little-endian GGUF is read");
  EXPECT_EQ(refusal("GGUF" + little(3, 4) + little(0, 8) + "x"), "F: cut short: 8 bytes at byte 16 of 17");
  EXPECT_EQ(refusal("GGUF" + little(3, 4) + little(1 << 20, 8) + little(0, 8)),
            "F: 1048576 tensors, at most 262144 are read");
  EXPECT_EQ(refusal("GGUF" + little(3, 4) + little(0, 8) + little(1 << 20, 8)),
            "F: 1048576 metadata values, at most 65536 are read");
  EXPECT_EQ(refusal(file({u32("a", 1), u32("a", 1)})), "F: \"a\" is there twice");
  EXPECT_EQ(refusal(file({text("a") + little(13, 4)})), "F: \"a\": a value of the unknown type 13");
  EXPECT_EQ(refusal(file({array("a", 13, 0, "")})), "F: \"a\": an array of the unknown type 13");
  EXPECT_EQ(refusal(file({array("a", 9, 0, "")})), "F: \"a\": arrays inside arrays are not supported");
  EXPECT_NE(refusal(file({array("a", 8, ~uint64_t{0}, "")})).find("cut short"), std::string::npos);
  EXPECT_NE(refusal(file({array("a", 10, uint64_t{1} << 61, "")})).find("2305843009213693952 values of 8 bytes"),
            std::string::npos);
  EXPECT_NE(refusal(file({little(~uint64_t{0}, 8)})).find("18446744073709551615 bytes at byte 32"), std::string::npos);
  EXPECT_EQ(refusal(file({u32("general.alignment", 24)})), "F: general.alignment = 24 is not a power of two");
  EXPECT_EQ(refusal(file({u32("general.alignment", 0)})), "F: general.alignment = 0 is not a power of two");
}

TEST(Gguf, reads_tensors) {
  const Gguf gguf = parse(file({u32("general.alignment", 64)}, {tensor("a", {32, 3}, 8, 64), tensor("b", {4}, 0, 0)},
                               std::string(166, '\0'), 3, 64));
  ASSERT_EQ(gguf.tensors.size(), 2u);
  EXPECT_EQ(gguf.tensors[0].shape, (std::vector<int64_t>{3, 32}));
  EXPECT_EQ(gguf.tensors[0].type->name, "Q8_0");
  EXPECT_EQ(gguf.tensors[0].end - gguf.tensors[0].begin, 3u * 34);
  EXPECT_EQ(gguf.tensors[0].begin - gguf.tensors[1].begin, 64u);
}

TEST(Gguf, refuses_tensors_by_name) {
  EXPECT_EQ(tensor_refusal({tensor("a", {}, 0, 0)}), "F: tensor \"a\": 0 dimensions, 1 to 4 are read");
  EXPECT_EQ(tensor_refusal({tensor("a", {1, 1, 1, 1, 1}, 0, 0)}), "F: tensor \"a\": 5 dimensions, 1 to 4 are read");
  EXPECT_EQ(tensor_refusal({tensor("a", {4, 0}, 0, 0)}), "F: tensor \"a\": a dimension of 0");
  EXPECT_EQ(tensor_refusal({tensor("a", {uint64_t{1} << 40, uint64_t{1} << 40}, 0, 0)}),
            "F: tensor \"a\": its shape overflows");
  EXPECT_EQ(tensor_refusal({tensor("a", {uint64_t{1} << 62}, 0, 0)}), "F: tensor \"a\": its size overflows");
  EXPECT_EQ(tensor_refusal({tensor("a", {32}, 23, 0)}), "F: tensor \"a\": type IQ4_XS is not supported");
  EXPECT_EQ(tensor_refusal({tensor("a", {32}, 99, 0)}), "F: tensor \"a\": type 99 is not known");
  EXPECT_EQ(tensor_refusal({tensor("a", {48, 2}, 2, 0)}),
            "F: tensor \"a\": rows of 48 are no whole number of Q4_0 blocks of 32");
  EXPECT_EQ(tensor_refusal({tensor("a", {4}, 0, 8)}), "F: tensor \"a\": byte 8 is no multiple of 32");
  EXPECT_EQ(tensor_refusal({tensor("a", {20}, 0, 0)}),
            "F: tensor \"a\": bytes 0 to 80 do not lie in the 64 bytes of data");
  EXPECT_EQ(tensor_refusal({tensor("a", {4}, 0, ~uint64_t{31})}),
            "F: tensor \"a\": bytes 18446744073709551584 to 18446744073709551600 do not lie in the 64 bytes of data");
  EXPECT_EQ(tensor_refusal({tensor("a", {4}, 0, 0), tensor("a", {4}, 0, 32)}), "F: tensor \"a\" is there twice");
  EXPECT_EQ(tensor_refusal({tensor("a", {12}, 0, 0), tensor("b", {4}, 0, 32)}),
            "F: two tensors overlap: bytes 0 to 48 and 32 to 48 of the data");
}

TEST(Gguf, one_file_of_a_folder) {
  const TemporaryFolder folder;
  EXPECT_EQ(only_gguf_file(folder.path), "");
  folder.write("a.gguf", "");
  EXPECT_EQ(only_gguf_file(folder.path), (folder / "a.gguf").string());
  folder.write("b.gguf", "");
  EXPECT_EQ(error_of<std::runtime_error>([&] { only_gguf_file(folder.path); }),
            folder.path.string() + ": 2 .gguf files and no other weights; name one of them");
}

// Every truncation is refused, every changed byte refused or read.
TEST(Gguf, hostile_bytes_are_refused_or_read) {
  const std::string good = file({u32("n", 1), string("s", "text"), texts("t", {"a", "bc"}), integers("i", {1, 2})},
                                {tensor("a", {32}, 2, 0), tensor("b", {8}, 0, 32)}, std::string(64, '\1'));
  int refused = 0;
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_NE(refusal(good.substr(0, size)), "") << size;
  }
  for (size_t at = 0; at < good.size(); ++at) {
    for (const char flip : {'\1', '\x80', '\xff'}) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ flip);
      const std::string message = refusal(bad);
      EXPECT_TRUE(message.empty() || message.starts_with("F: ")) << message;
      refused += !message.empty();
    }
  }
  EXPECT_GT(refused, 300);
}

TEST(Gguf, corpus_of_the_fuzzer) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(HESPER_SOURCE_DIR "/fuzz/corpus/gguf")) {
    const std::string error = refusal(read_bytes(entry.path()));
    EXPECT_EQ(error.empty(), entry.path().filename().string().starts_with("good_")) << entry.path() << " " << error;
    ++files;
  }
  EXPECT_GE(files, 10);
}

}  // namespace
}  // namespace hesper
