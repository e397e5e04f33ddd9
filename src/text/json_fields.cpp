#include "text/json_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace hesper {

nlohmann::json parse_json_object(std::string_view text, std::string_view name) {
  nlohmann::json value;
  try {
    value = nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    throw std::runtime_error(fmt::format("{}: not valid JSON: {}", name, error.what()));
  }
  if (!value.is_object()) throw std::runtime_error(fmt::format("{}: a JSON object expected", name));
  return value;
}

JsonFields::JsonFields(const nlohmann::json& value, std::string where) : value_(&value), where_(std::move(where)) {
  if (!value.is_object()) fail("a JSON object expected");
}

void JsonFields::fail(const std::string& what) const { throw std::runtime_error(fmt::format("{}: {}", where_, what)); }

void JsonFields::allow(std::initializer_list<std::string_view> keys) const {
  for (const auto& [key, unused] : value_->items()) {
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) fail(fmt::format("'{}' is not supported", key));
  }
}

bool JsonFields::has(const std::string& key) const {
  const auto found = value_->find(key);
  return found != value_->end() && !found->is_null();
}

const nlohmann::json& JsonFields::at(const std::string& key) const {
  if (!has(key)) fail(fmt::format("'{}' is missing", key));
  return *value_->find(key);
}

JsonFields JsonFields::object(const std::string& key) const { return {at(key), where_ + "." + key}; }

const nlohmann::json& JsonFields::array(const std::string& key) const {
  if (!at(key).is_array()) fail(fmt::format("'{}' is not a list", key));
  return at(key);
}

std::string JsonFields::string(const std::string& key) const {
  if (!at(key).is_string()) fail(fmt::format("'{}' is not a string", key));
  return at(key).get<std::string>();
}

std::string JsonFields::string_or(const std::string& key, std::string fallback) const {
  return has(key) ? string(key) : std::move(fallback);
}

bool JsonFields::boolean_or(const std::string& key, bool fallback) const {
  if (!has(key)) return fallback;
  if (!at(key).is_boolean()) fail(fmt::format("'{}' is not true or false", key));
  return at(key).get<bool>();
}

int64_t JsonFields::integer(const std::string& key) const {
  const nlohmann::json& value = at(key);
  if (!value.is_number_integer() ||
      (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()})) {
    fail(fmt::format("'{}' is not a whole number that fits 64 bits", key));
  }
  return value.get<int64_t>();
}

}  // namespace hesper
