#pragma once
// The options that a result depends on, as JSON: two that differ are of different runs.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace hesper {

/// "key old, now new" of the first key whose value differs; empty where both are equal. Both are objects.
std::string first_difference(const nlohmann::json& before, const nlohmann::json& now);

/// Throws std::invalid_argument where the record at `path` has another "configuration" than `now` (naming the first
/// difference) or is none. Nothing at `path`: fine.
void check_configuration(const std::filesystem::path& path, const nlohmann::json& now);

}  // namespace hesper
