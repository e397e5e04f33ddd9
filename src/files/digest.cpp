#include "files/digest.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>
#include <stdexcept>

namespace hesper {
namespace {

void check(bool done, const char* what) {
  if (!done) throw std::runtime_error(fmt::format("OpenSSL cannot {}", what));
}

}  // namespace

Digest::Digest(const char* algorithm) : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
  const EVP_MD* kind = EVP_get_digestbyname(algorithm);
  if (!kind || !context_ || EVP_DigestInit_ex(context_.get(), kind, nullptr) != 1)
    throw std::runtime_error(fmt::format("OpenSSL offers no {}", algorithm));
}

void Digest::update(std::span<const std::byte> bytes) {
  check(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1, "go on with a digest");
}

std::string Digest::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> bytes{};
  unsigned size = 0;
  check(EVP_DigestFinal_ex(context_.get(), bytes.data(), &size) == 1, "end a digest");
  std::string out;
  for (unsigned i = 0; i < size; ++i) out += fmt::format("{:02x}", bytes[i]);
  return out;
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 digest;
  digest.update(bytes);
  return digest.hex();
}

}  // namespace hesper
