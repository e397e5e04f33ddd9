#include "run/configuration.h"

#include <fmt/format.h>

#include <fstream>
#include <stdexcept>

namespace hesper {

namespace fs = std::filesystem;
using nlohmann::json;

std::string first_difference(const json& before, const json& now) {
  if (before == now) return "";
  for (const auto& [key, value] : now.items()) {
    const json old = before.value(key, json());
    if (old == value) continue;
    if (old.is_string() && value.is_string() && old.get<std::string>().size() < 20)
      return fmt::format("{} {}, now {}", key, old.get<std::string>(), value.get<std::string>());
    if (old.is_number() && value.is_number()) return fmt::format("{} {}, now {}", key, old.dump(), value.dump());
    return fmt::format("another {}", key);
  }
  return "other options";
}

void check_configuration(const fs::path& path, const json& now) {
  if (!fs::exists(path)) return;
  std::ifstream file(path);
  const json record = json::parse(file, nullptr, false);
  if (!record.is_object() || !record.contains("configuration") || !record["configuration"].is_object()) {
    throw std::invalid_argument(fmt::format("{}: not the record of a result; --overwrite replaces it", path.string()));
  }
  const std::string difference = first_difference(record["configuration"], now);
  if (difference.empty()) return;
  throw std::invalid_argument(
      fmt::format("{}: made with {}; --overwrite replaces it, --out DIR keeps both", path.string(), difference));
}

}  // namespace hesper
