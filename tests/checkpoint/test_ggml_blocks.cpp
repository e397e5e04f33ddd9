#include "checkpoint/ggml_blocks.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <random>

#include "checkpoint/gguf_file.h"
#include "checkpoint/safetensors.h"
#include "files/gguf_bytes.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

using gguf_bytes::file;
using gguf_bytes::little;
using gguf_bytes::tensor;

constexpr struct {
  const char* name;
  uint32_t number;
  size_t elements, bytes;
  std::vector<size_t> (*halves)();  // where the float16 numbers of a block are
} block_types[] = {
    {"Q4_0", 2, 32, 18, [] { return std::vector<size_t>{0}; }},
    {"Q4_1", 3, 32, 20,
     [] {
       return std::vector<size_t>{0, 2};
     }},
    {"Q5_0", 6, 32, 22, [] { return std::vector<size_t>{0}; }},
    {"Q5_1", 7, 32, 24,
     [] {
       return std::vector<size_t>{0, 2};
     }},
    {"Q8_0", 8, 32, 34, [] { return std::vector<size_t>{0}; }},
    {"Q2_K", 10, 256, 84,
     [] {
       return std::vector<size_t>{80, 82};
     }},
    {"Q3_K", 11, 256, 110, [] { return std::vector<size_t>{108}; }},
    {"Q4_K", 12, 256, 144,
     [] {
       return std::vector<size_t>{0, 2};
     }},
    {"Q5_K", 13, 256, 176,
     [] {
       return std::vector<size_t>{0, 2};
     }},
    {"Q6_K", 14, 256, 210, [] { return std::vector<size_t>{208}; }},
};

const std::string one = little(0x3c00, 2), half = little(0x3800, 2), minus_two = little(0xc000, 2);

// The values of one block, through a whole file.
std::vector<float> values_of(uint32_t type, const std::string& block, uint64_t elements) {
  const TemporaryFolder folder;
  const GgufFile gguf(folder.write("x.gguf", file({}, {tensor("x", {elements}, type, 0)}, block)));
  const at::Tensor x = gguf.view("x");
  return {x.const_data_ptr<float>(), x.const_data_ptr<float>() + x.numel()};
}

TEST(GgmlBlocks, blocks_of_32_by_hand) {
  // Byte j holds the quants of values j and j + 16.
  const std::string quants = std::string("\x3f", 1) + std::string(14, '\x88') + "\x01";
  std::vector<float> x = values_of(2, half + quants, 32);  // (q - 8) / 2
  EXPECT_EQ(x[0], 3.5F);
  EXPECT_EQ(x[16], -2.5F);
  EXPECT_EQ(x[1], 0.0F);
  EXPECT_EQ(x[15], -3.5F);
  EXPECT_EQ(x[31], -4.0F);
  x = values_of(3, half + minus_two + quants, 32);  // q / 2 - 2
  EXPECT_EQ(x[0], 5.5F);
  EXPECT_EQ(x[16], -0.5F);
  EXPECT_EQ(x[31], -2.0F);
  const std::string high = little(uint32_t{1} << 31 | 1, 4);  // the fifth bit of values 0 and 31
  x = values_of(6, one + high + quants, 32);                  // q - 16
  EXPECT_EQ(x[0], 15.0F);
  EXPECT_EQ(x[16], -13.0F);
  EXPECT_EQ(x[15], -15.0F);
  EXPECT_EQ(x[31], 0.0F);
  x = values_of(7, one + half + high + quants, 32);  // q + 1/2
  EXPECT_EQ(x[0], 31.5F);
  EXPECT_EQ(x[16], 3.5F);
  EXPECT_EQ(x[31], 16.5F);
  x = values_of(8, minus_two + std::string("\x7f\x80", 2) + std::string(30, '\1'), 32);
  EXPECT_EQ(x[0], -254.0F);
  EXPECT_EQ(x[1], 256.0F);
  EXPECT_EQ(x[31], -2.0F);
}

TEST(GgmlBlocks, blocks_of_256_by_hand) {
  // Q2_K: scale 3 and minimum 5 everywhere, quants 0, 1, 2, 3 in the runs of 32.
  std::vector<float> x = values_of(10, std::string(16, '\x53') + std::string(64, '\xe4') + one + half, 256);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(x[i], 3.0F * (i / 32 % 4) - 2.5F) << i;
  // Q3_K: every scale 32 + 1 of low nibble 1 and high bits 2; third bits of value 0 alone set.
  x = values_of(11,
                std::string(1, '\1') + std::string(31, '\0') + std::string(64, '\xe4') + std::string(8, '\x11') +
                    std::string(4, '\xaa') + one,
                256);
  EXPECT_EQ(x[0], 0.0F);
  EXPECT_EQ(x[1], -4.0F);
  EXPECT_EQ(x[255], -1.0F);
  // Q4_K: group 0 has scale 1 and minimum 2; group 4 scale 0x31 and minimum 0x12, the high bits with groups 0.
  std::string scales(12, '\0');
  scales[0] = '\xc1', scales[4] = '\x42', scales[8] = '\x21';
  x = values_of(12, one + one + scales + std::string(128, '\x75'), 256);
  EXPECT_EQ(x[0], 1.0F * 5 - 2);
  EXPECT_EQ(x[32], 0.0F);
  EXPECT_EQ(x[128], 49.0F * 5 - 18);
  // Q5_K: the same with the fifth bit of group 4 set.
  x = values_of(13, one + one + scales + std::string(32, '\x10') + std::string(128, '\x75'), 256);
  EXPECT_EQ(x[0], 3.0F);
  EXPECT_EQ(x[128], 49.0F * 21 - 18);
  // Q6_K: low bits 9 and 3, high bits 0, 1, 2, 3 in the runs of 32; scales -1.
  x = values_of(14, std::string(128, '\x39') + std::string(64, '\xe4') + std::string(16, '\xff') + one, 256);
  EXPECT_EQ(x[0], -(9.0F - 32));
  EXPECT_EQ(x[32], -(9.0F + 16 - 32));
  EXPECT_EQ(x[64], -(3.0F + 32 - 32));
  EXPECT_EQ(x[255], -(3.0F + 48 - 32));
}

TEST(GgmlBlocks, plain_types_are_mapped) {
  const TemporaryFolder folder;
  const GgufFile gguf(
      folder.write("x.gguf", file({}, {tensor("f", {2}, 0, 0), tensor("h", {2}, 1, 32), tensor("b", {2}, 30, 64)},
                                  gguf_bytes::number(1.5F) + gguf_bytes::number(-2) + std::string(24, '\0') + one +
                                      half + std::string(28, '\0') + little(0x3fc0, 2) + little(0xc000, 2))));
  EXPECT_TRUE(at::equal(gguf.view("f"), at::tensor({1.5F, -2.0F})));
  EXPECT_TRUE(at::equal(gguf.view("h"), at::tensor({1.0F, 0.5F}).to(at::kHalf)));
  EXPECT_TRUE(at::equal(gguf.view("b"), at::tensor({1.5F, -2.0F}).to(at::kBFloat16)));
}

// Bit by bit what the `gguf` package makes of the same random blocks, finite scales of every size among them.
TEST(GgmlBlocks, values_are_those_of_the_gguf_package) {
  const char* python = std::getenv("HESPER_ORACLE_PYTHON");
  if (python == nullptr ||
      std::system(fmt::format("'{}' -c 'import gguf, safetensors' >/dev/null 2>&1", python).c_str()) != 0) {
    GTEST_SKIP() << "needs a Python with gguf and safetensors, named by HESPER_ORACLE_PYTHON";
  }
  const TemporaryFolder folder;
  std::mt19937 random(1);
  constexpr uint64_t blocks = 96;
  std::vector<std::string> tensors;
  std::string data;
  for (const auto& type : block_types) {
    tensors.push_back(tensor(type.name, {type.elements, blocks}, type.number, data.size()));
    for (uint64_t b = 0; b < blocks; ++b) {
      std::string block;
      for (size_t i = 0; i < type.bytes; ++i) block += static_cast<char>(random() & 255);
      for (const size_t at : type.halves()) {  // no infinity, no NaN: an exponent of all ones
        if ((block[at + 1] & 0x7c) == 0x7c) block[at + 1] = static_cast<char>(block[at + 1] ^ 0x40);
      }
      data += block;
    }
    data.resize((data.size() + 31) / 32 * 32, '\0');
  }
  const std::string ours =
      folder.write("x.gguf", file({gguf_bytes::string("general.architecture", "llama")}, tensors, data));
  const std::string theirs = folder / "x.safetensors";
  const std::string script = folder.write("dequantise.py", R"(
import sys
from gguf import GGUFReader, quants
from safetensors.numpy import save_file
save_file({t.name: quants.dequantize(t.data, t.tensor_type) for t in GGUFReader(sys.argv[1]).tensors}, sys.argv[2])
)");
  ASSERT_EQ(std::system(fmt::format("'{}' {} {} {}", python, script, ours, theirs).c_str()), 0);
  const GgufFile gguf(ours);
  const SafetensorsFile expected(theirs);
  for (const auto& type : block_types) {
    const at::Tensor a = gguf.view(type.name), b = expected.view(type.name);
    ASSERT_EQ(b.scalar_type(), at::kFloat);
    ASSERT_EQ(a.numel(), b.numel());
    EXPECT_EQ(std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()), 0) << type.name;
  }
}

}  // namespace
}  // namespace hesper
