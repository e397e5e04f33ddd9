#pragma once

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

namespace hesper {

// NaN and infinity have no JSON: null.
inline nlohmann::json json_number(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(nullptr);
}
inline nlohmann::json json_number(const std::optional<double>& value) {
  return value ? json_number(*value) : nlohmann::json(nullptr);
}

}  // namespace hesper
