#include "model/config_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace hesper {
namespace {

using nlohmann::json;

constexpr int64_t largest_token_id = int64_t{1} << 31;

std::string shown(const json& value) {
  constexpr size_t longest = 80;
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > longest) text = text.substr(0, longest) + "...";
  return text;
}

bool fits(const json& value, int64_t least, int64_t most) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return false;
  return value.get<int64_t>() >= least && value.get<int64_t>() <= most;
}

}  // namespace

ConfigReader::ConfigReader(const json& object, std::string file, std::string prefix, bool from_gguf)
    : object_(object), file_(std::move(file)), prefix_(std::move(prefix)), from_gguf_(from_gguf) {
  if (!object_.is_object()) {
    throw std::runtime_error(prefix_.empty() ? fmt::format("{}: not a JSON object", file_)
                                             : fmt::format("{}: {} is {}, expected an object", file_,
                                                           prefix_.substr(0, prefix_.size() - 1), shown(object_)));
  }
}

const json* ConfigReader::find(const char* key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void ConfigReader::refuse(const char* key, const std::string& why) const {
  const json* value = find(key);
  throw std::runtime_error(fmt::format("{}: {}{} {} {}", file_, prefix_, key,
                                       value == nullptr ? "is absent and" : fmt::format("= {}", shown(*value)), why));
}

void ConfigReader::missing(const char* key) const {
  throw std::runtime_error(fmt::format("{}: {}{} is missing", file_, prefix_, key));
}

int64_t ConfigReader::integer(const char* key, int64_t least, int64_t most, std::optional<int64_t> fallback) const {
  const json* value = find(key);
  if (value == nullptr) {
    if (!fallback) missing(key);
    return *fallback;
  }
  if (!fits(*value, least, most)) refuse(key, fmt::format("is not an integer from {} to {}", least, most));
  return value->get<int64_t>();
}

double ConfigReader::positive(const char* key, std::optional<double> fallback) const {
  constexpr double most = 1e30;
  const json* value = find(key);
  if (value == nullptr) {
    if (!fallback) missing(key);
    return *fallback;
  }
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (!(number > 0 && number <= most)) refuse(key, "is not a positive number");
  return number;
}

bool ConfigReader::boolean(const char* key, bool fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) refuse(key, "is not true or false");
  return value->get<bool>();
}

std::string ConfigReader::text(const char* key, std::optional<std::string> fallback) const {
  const json* value = find(key);
  if (value == nullptr) {
    if (!fallback) missing(key);
    return *fallback;
  }
  if (!value->is_string()) refuse(key, "is not a string");
  return value->get<std::string>();
}

std::optional<std::vector<int64_t>> ConfigReader::choices(const char* key, int64_t count,
                                                          const std::vector<json>& values) const {
  const json* list = find(key);
  if (list == nullptr) return std::nullopt;
  if (!list->is_array() || static_cast<int64_t>(list->size()) < count)
    refuse(key, fmt::format("is not a list of {} values", count));
  std::vector<int64_t> out;
  for (int64_t i = 0; i < count; ++i) {
    const auto it = std::find(values.begin(), values.end(), (*list)[static_cast<size_t>(i)]);
    if (it == values.end()) {
      std::string known;
      for (const json& value : values) known += (known.empty() ? "" : ", ") + value.dump();
      refuse(key, fmt::format("is not supported ({} are)", known));
    }
    out.push_back(it - values.begin());
  }
  return out;
}

std::vector<int64_t> ConfigReader::token_ids(const char* key, std::vector<int64_t> fallback) const {
  const auto it = object_.find(key);
  if (it == object_.end()) return fallback;
  std::vector<int64_t> ids;
  if (it->is_null()) return ids;
  for (const json& id : it->is_array() ? *it : json::array({*it})) {
    if (!fits(id, -1, largest_token_id)) refuse(key, "is not a token id or a list of them");
    if (id.get<int64_t>() >= 0) ids.push_back(id.get<int64_t>());
  }
  return ids;
}

void ConfigReader::only(const char* key, const std::vector<json>& neutral) const {
  const json* value = find(key);
  if (value != nullptr && std::find(neutral.begin(), neutral.end(), *value) == neutral.end()) refuse(key);
}

}  // namespace hesper
