#include <gtest/gtest.h>

#include <string>

#include "files/digest.h"

namespace hesper {
namespace {

std::string digest(const std::string& text) { return sha256_hex(std::as_bytes(std::span(text))); }

// The examples of FIPS 180-4 and of NIST's CAVP long messages.
TEST(Sha256, fips_vectors) {
  EXPECT_EQ(digest(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(digest(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha1, fips_vector) {
  Sha1 digest;
  const std::string text = "abc";
  digest.update(std::as_bytes(std::span(text)));
  EXPECT_EQ(digest.hex(), "a9993e364706816aba3e25717850c26c9cd0d89d");
}

TEST(Sha256, parts_of_any_length_give_the_same_digest) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += static_cast<char>(i * 7);
  for (size_t part : {1, 55, 56, 63, 64, 65, 128, 299}) {
    Sha256 running;
    for (size_t i = 0; i < text.size(); i += part)
      running.update(std::as_bytes(std::span(text)).subspan(i, std::min(part, text.size() - i)));
    EXPECT_EQ(running.hex(), digest(text)) << part;
  }
}

}  // namespace
}  // namespace hesper
