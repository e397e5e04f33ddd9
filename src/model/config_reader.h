#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace hesper {

// Typed, range-checked access to one object of config.json. null counts as absent, as in transformers. Every failure is
// a std::runtime_error "FILE: KEY is VALUE, expected ...".
class ConfigReader {
 public:
  // `object` must outlive the reader; `prefix` comes before keys in errors ("rope_scaling.").
  // from_gguf: it stands for the metadata of a GGUF file.
  ConfigReader(const nlohmann::json& object, std::string file, std::string prefix = "", bool from_gguf = false);

  bool has(const char* key) const { return find(key) != nullptr; }
  bool contains(const char* key) const { return object_.contains(key); }  // also where it is null
  const nlohmann::json* find(const char* key) const;                      // nullptr when absent or null
  const nlohmann::json& object() const { return object_; }

  int64_t integer(const char* key, int64_t least, int64_t most, std::optional<int64_t> fallback = {}) const;
  double positive(const char* key, std::optional<double> fallback = {}) const;  // finite and > 0, at most 1e30
  bool boolean(const char* key, bool fallback) const;
  std::string text(const char* key, std::optional<std::string> fallback = {}) const;
  // The list at `key` with exactly `count` of the named values, as their numbers; std::nullopt when absent or null.
  std::optional<std::vector<int64_t>> choices(const char* key, int64_t count,
                                              const std::vector<nlohmann::json>& values) const;
  std::vector<int64_t> token_ids(const char* key, std::vector<int64_t> fallback) const;  // one id or a list; -1 is none

  // Refuses the key by name unless it is absent, null, or equal to one of `neutral`.
  void only(const char* key, const std::vector<nlohmann::json>& neutral) const;
  [[noreturn]] void refuse(const char* key, const std::string& why = "is not supported") const;
  const std::string& file() const { return file_; }
  const std::string& prefix() const { return prefix_; }
  bool from_gguf() const { return from_gguf_; }

 private:
  [[noreturn]] void missing(const char* key) const;

  const nlohmann::json& object_;
  std::string file_;
  std::string prefix_;
  bool from_gguf_;
};

}  // namespace hesper
