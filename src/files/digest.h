#pragma once
// SHA-256 and SHA-1 (FIPS 180-4) by OpenSSL, which uses the processor's instructions for them: names of weights, ids
// and selections in records, and what the hub promises of its files.
#include <cstddef>
#include <memory>
#include <span>
#include <string>

struct evp_md_ctx_st;

namespace hesper {

/// Running digest, for data that arrives in parts. Any number of update() calls, then one hex().
class Digest {
 public:
  void update(std::span<const std::byte> bytes);
  std::string hex();  // lower-case digits; ends the digest

 protected:
  /// algorithm: as OpenSSL names it. Throws std::runtime_error where its library does not offer that one.
  explicit Digest(const char* algorithm);

 private:
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
};

class Sha256 : public Digest {  // 64 digits
 public:
  Sha256() : Digest("SHA256") {}
};

class Sha1 : public Digest {  // 40 digits, as git names objects by it
 public:
  Sha1() : Digest("SHA1") {}
};

std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace hesper
