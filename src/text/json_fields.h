#pragma once
// Typed reads of nlohmann::json with one-line errors that name the file and the field (std::runtime_error).
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace hesper {

// The parsed document; it must be an object.
nlohmann::json parse_json_object(std::string_view text, std::string_view name);

// An object whose place in its document is `where`, for messages.
class JsonFields {
 public:
  JsonFields(const nlohmann::json& value, std::string where);

  // Refuses every key outside the list by name.
  void allow(std::initializer_list<std::string_view> keys) const;

  bool has(const std::string& key) const;  // present and not null
  const nlohmann::json& at(const std::string& key) const;
  JsonFields object(const std::string& key) const;
  const nlohmann::json& array(const std::string& key) const;
  std::string string(const std::string& key) const;
  std::string string_or(const std::string& key, std::string fallback) const;
  bool boolean_or(const std::string& key, bool fallback) const;
  int64_t integer(const std::string& key) const;

  const std::string& where() const { return where_; }
  [[noreturn]] void fail(const std::string& what) const;

 private:
  const nlohmann::json* value_;
  std::string where_;
};

}  // namespace hesper
