#include <fmt/format.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <utility>
#include <vector>

#include "checkpoint/header_bytes.h"
#include "files/read_file.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

const std::string eight(8, '\0');

std::string refusal(const std::string& header, const std::string& data = eight) {
  const std::string bytes = safetensors_bytes(header, data);
  return error_of<std::runtime_error>([&] { parse_bytes(bytes); });
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return fmt::format(R"({{"dtype":"{}","shape":{},"data_offsets":{}}})", dtype, shape, offsets);
}

std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{\"a\":" + entry(dtype, shape, offsets) + "}";
}

TEST(SafetensorsHeader, reads_tensors_in_order_of_offsets) {
  const std::string text = "{\"__metadata__\":{\"format\":\"pt\"},\"b\":" + entry("F16", "[2,1]", "[4,8]") +
                           ",\"a\":" + entry("I32", "[]", "[0,4]") + ",\"none\":" + entry("F64", "[0,3]", "[4,4]") +
                           "}";
  const SafetensorsHeader header = parse_bytes(safetensors_bytes(text, eight));
  ASSERT_EQ(header.tensors.size(), 3u);
  EXPECT_EQ(header.tensors[0].name, "a");
  EXPECT_EQ(header.tensors[0].dtype, c10::ScalarType::Int);
  EXPECT_TRUE(header.tensors[0].shape.empty());
  EXPECT_EQ(header.tensors[1].name, "none");
  EXPECT_EQ(header.tensors[2].name, "b");
  EXPECT_EQ(header.tensors[2].shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(header.tensors[2].begin, 8 + text.size() + 4);
  EXPECT_EQ(header.tensors[2].end, 8 + text.size() + 8);
  EXPECT_EQ(header.metadata.at("format"), "pt");
}

TEST(SafetensorsHeader, knows_ten_dtypes_and_their_sizes) {
  const std::vector<std::pair<std::string, int>> sizes = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
                                                          {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U8", 1},   {"BOOL", 1}};
  for (const auto& [name, size] : sizes) {
    const std::string header = one(name, "[3]", fmt::format("[0,{}]", 3 * size));
    const auto parsed = parse_bytes(safetensors_bytes(header, std::string(3 * static_cast<size_t>(size), 'x')));
    EXPECT_EQ(dtype_to_safetensors(parsed.tensors.at(0).dtype), name);
  }
  EXPECT_EQ(refusal(one("F8_E4M3", "[8]", "[0,8]")), "file: tensor \"a\": dtype \"F8_E4M3\" is not supported");
  EXPECT_EQ(dtype_to_safetensors(c10::ScalarType::ComplexFloat), "");
}

TEST(SafetensorsHeader, refuses_lengths_beyond_the_file) {
  for (size_t size = 0; size < 8; ++size) {
    const std::string bytes(size, '\0');
    EXPECT_EQ(error_of<std::runtime_error>([&] { parse_bytes(bytes); }),
              fmt::format("file: {} bytes, a safetensors file has at least 8", size));
  }
  const std::vector<std::pair<uint64_t, std::string>> cases = {
      {0, "file: safetensors header does not start with '{'"},
      {3, "file: safetensors header of 3 bytes, but 2 follow: the file is truncated"},
      {100'000'000, "file: safetensors header of 100000000 bytes, but 2 follow: the file is truncated"},
      {100'000'001, "file: safetensors header of 100000001 bytes, at most 100000000 are allowed"},
      {UINT64_MAX, "file: safetensors header of 18446744073709551615 bytes, at most 100000000 are allowed"},
      {UINT64_MAX - 7, "file: safetensors header of 18446744073709551608 bytes, at most 100000000 are allowed"},
  };
  for (const auto& [length, message] : cases) {
    const std::string bytes = safetensors_bytes("{}", "", length);
    EXPECT_EQ(error_of<std::runtime_error>([&] { parse_bytes(bytes); }), message);
  }
  EXPECT_TRUE(parse_bytes(safetensors_bytes("{}")).tensors.empty());
}

TEST(SafetensorsHeader, refuses_every_truncation_of_a_good_file) {
  const std::string header = "{\"a\":" + entry("F32", "[1]", "[0,4]") + ",\"b\":" + entry("I16", "[2]", "[4,8]") + "}";
  const std::string bytes = safetensors_bytes(header, eight);
  EXPECT_EQ(parse_bytes(bytes).tensors.size(), 2u);
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THROW(parse_bytes(bytes.substr(0, size)), std::runtime_error) << size;
  }
  EXPECT_EQ(error_of<std::runtime_error>([&] { parse_bytes(bytes + "x"); }),
            "file: tensors hold 8 bytes of data, the file has 9");
}

TEST(SafetensorsHeader, refuses_offsets_that_do_not_tile_the_data) {
  EXPECT_EQ(refusal(one("F32", "[2]", "[0,9]")), "file: tensor \"a\": bytes 0 to 9 do not lie in the 8 bytes of data");
  EXPECT_EQ(refusal(one("F32", "[2]", "[8,0]")), "file: tensor \"a\": bytes 8 to 0 do not lie in the 8 bytes of data");
  EXPECT_EQ(refusal(one("F32", "[2]", "[18446744073709551608,18446744073709551615]")),
            "file: tensor \"a\": bytes 18446744073709551608 to 18446744073709551615 do not lie in the 8 bytes of data");
  EXPECT_EQ(refusal(one("F32", "[3]", "[0,8]")), "file: tensor \"a\": 8 bytes stored, shape (3) of F32 needs 12");
  const auto two = [](const char* first, const char* second) {
    return "{\"a\":" + entry("U8", "[4]", first) + ",\"b\":" + entry("U8", "[4]", second) + "}";
  };
  EXPECT_EQ(refusal(two("[0,4]", "[2,6]")),
            "file: tensor \"b\": starts at byte 2 of the data, the tensor before it ends at 4");
  EXPECT_EQ(refusal(two("[0,4]", "[0,4]")),
            "file: tensor \"b\": starts at byte 0 of the data, the tensor before it ends at 4");
  EXPECT_EQ(refusal(two("[0,4]", "[5,9]"), eight + "x"),
            "file: tensor \"b\": starts at byte 5 of the data, the tensor before it ends at 4");
  EXPECT_EQ(refusal(one("U8", "[4]", "[4,8]")),
            "file: tensor \"a\": starts at byte 4 of the data, the tensor before it ends at 0");
}

TEST(SafetensorsHeader, refuses_shapes_that_overflow) {
  for (const char* shape : {"[4294967296,4294967296]", "[9223372036854775807,2]", "[18446744073709551615]",
                            "[4611686018427387905]", "[0,9223372036854775807,9223372036854775807]"}) {
    EXPECT_NE(refusal(one("F32", shape, "[0,0]"), "").find("overflows"), std::string::npos) << shape;
  }
  EXPECT_NE(refusal(one("F64", "[4611686018427387904]", "[0,8]")).find("overflows"), std::string::npos);
  EXPECT_EQ(refusal(one("U8", "[-1]", "[0,8]")),
            "file: tensor \"a\": a dimension is \"-1\", not a non-negative integer");
  EXPECT_EQ(refusal(one("U8", "[1.5]", "[0,8]")),
            "file: tensor \"a\": a dimension is \"1.5\", not a non-negative integer");
  std::string many = "[1";
  for (int i = 0; i < 32; ++i) many += ",1";
  EXPECT_EQ(refusal(one("F64", many + "]", "[0,8]")), "file: tensor \"a\": 33 dimensions, at most 32 are supported");
}

TEST(SafetensorsHeader, refuses_ill_formed_headers) {
  const std::string good = entry("F64", "[1]", "[0,8]");
  EXPECT_EQ(refusal("{\"a\":" + good + ",\"a\":" + good + "}"), "file: safetensors header names \"a\" twice");
  EXPECT_EQ(refusal("{\"a\":{\"dtype\":\"F64\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}"),
            "file: safetensors header names \"dtype\" twice");
  EXPECT_NE(refusal("{\"a\":" + good).find("is not JSON"), std::string::npos);
  EXPECT_NE(refusal("{\"\xff\":" + good + "}").find("is not JSON"), std::string::npos);
  EXPECT_EQ(refusal("[" + good + "]"), "file: safetensors header does not start with '{'");
  EXPECT_EQ(refusal("{\"a\":3}"), "file: tensor \"a\": its header entry is not an object");
  EXPECT_EQ(refusal("{\"a\":{\"dtype\":\"F64\",\"shape\":[1]}}"),
            "file: tensor \"a\": its header entry has 2 members, expected 3");
  EXPECT_EQ(refusal("{\"a\":{\"dtype\":\"F64\",\"shape\":1,\"data_offsets\":[0,8]}}"),
            "file: tensor \"a\": \"shape\" is missing or ill-typed");
  EXPECT_EQ(refusal("{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,8]}}"),
            "file: tensor \"a\": \"dtype\" is missing or ill-typed");
  EXPECT_EQ(refusal("{\"a\":{\"dtype\":\"F64\",\"shape\":[1],\"offsets\":[0,8]}}"),
            "file: tensor \"a\": \"data_offsets\" is missing or ill-typed");
  EXPECT_EQ(refusal(one("F64", "[1]", "[0,8,8]")), "file: tensor \"a\": 3 data_offsets, expected 2");
  EXPECT_EQ(refusal("{\"__metadata__\":{\"x\":1}}", ""), "file: safetensors __metadata__ \"x\" is not a string");
  EXPECT_EQ(refusal("{\"__metadata__\":[]}", ""), "file: safetensors __metadata__ is not an object");
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "{\"a\":";
  EXPECT_EQ(refusal(deep), "file: safetensors header is nested more than 8 deep");
  EXPECT_EQ(refusal("{\"line\\nbreak\":3}"), "file: tensor \"line\\nbreak\": its header entry is not an object");
}

// The seeds of the fuzz targets: "good_*" must be read, "bad_*" refused with one line.
TEST(SafetensorsHeader, reads_or_refuses_the_fuzzing_seeds) {
  int seeds = 0;
  for (const auto& file : std::filesystem::directory_iterator(HESPER_SOURCE_DIR "/fuzz/corpus/safetensors")) {
    const std::string bytes = read_file(file.path());
    const std::string message = error_of<std::runtime_error>([&] { parse_bytes(bytes); });
    EXPECT_EQ(message.empty(), file.path().filename().string().starts_with("good_")) << file.path() << message;
    EXPECT_FALSE(message.starts_with("other")) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    ++seeds;
  }
  EXPECT_GE(seeds, 6);
}

}  // namespace
}  // namespace hesper
