// Rotary frequencies of the twin (twin.h), read from a config.json.
#pragma once

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <string>
#include <vector>

namespace hesper::oracle {

inline nlohmann::json rope_of(const nlohmann::json& config) {
  nlohmann::json rope = config.value("rope_scaling", nlohmann::json());
  if (rope.is_null()) rope = config.value("rope_parameters", nlohmann::json());
  return rope.is_null() ? nlohmann::json::object() : rope;
}
inline std::string rope_type(const nlohmann::json& rope) {
  return rope.value("rope_type", rope.value("type", std::string("default")));
}
inline double original_positions(const nlohmann::json& config) {
  const std::string key = "original_max_position_embeddings";
  return config.value(key, rope_of(config).value(key, 0.0));
}

// What queries and keys are multiplied by.
inline double rotary_factor(const nlohmann::json& config) {
  const nlohmann::json rope = rope_of(config);
  const std::string type = rope_type(rope);
  if (rope.contains("attention_factor")) return rope.at("attention_factor");
  if (type == "longrope" || type == "su") {
    const double original = original_positions(config), longest = config.at("max_position_embeddings");
    return std::sqrt(std::log(rope.value("factor", longest / original) * original) / std::log(original));
  }
  if (type != "yarn") return 1;
  const double tenth = std::log(rope.at("factor").get<double>()) / 10;
  if (!rope.contains("mscale")) return 1 + tenth;
  return (1 + tenth * rope.at("mscale").get<double>()) / (1 + tenth * rope.at("mscale_all_dim").get<double>());
}

// Inverse frequencies of rotary embedding for windows of T tokens.
inline std::vector<double> rotary_frequencies(const nlohmann::json& config, int64_t head_width, int64_t T) {
  const nlohmann::json rope = rope_of(config);
  const std::string type = rope_type(rope);
  double theta = rope.value("rope_theta", config.value("rope_theta", 10000.0));
  const double factor = rope.value("factor", 1.0), D = double(head_width);
  if (type == "dynamic") {
    const double limit = config.at("max_position_embeddings");
    const double length = std::max(double(T), limit);
    theta *= std::pow(factor * length / limit - (factor - 1.0), D / (D - 2.0));
  }
  std::vector<double> result;
  for (int64_t i = 0; i < head_width; i += 2) {
    double f = std::pow(theta, -double(i) / D);
    if (type == "linear") f /= factor;
    if (type == "llama3") {
      const double context = rope.at("original_max_position_embeddings"), low = rope.at("low_freq_factor");
      const double high = rope.at("high_freq_factor"), turns = context * f / (2.0 * std::numbers::pi);
      const double smooth = std::clamp((turns - low) / (high - low), 0.0, 1.0);  // 0: divided by factor, 1: kept
      f *= (1.0 - smooth) / factor + smooth;
    }
    if (type == "longrope" || type == "su")
      f /= rope.at(double(T) > original_positions(config) ? "long_factor" : "short_factor")
               .at(size_t(i / 2))
               .get<double>();
    if (type == "yarn") {
      // the pair, as a real number, that turns so often over the original positions
      const auto pair = [&](double turns) {
        return 0.5 * D * std::log(original_positions(config) / (2.0 * std::numbers::pi * turns)) / std::log(theta);
      };
      double first = pair(rope.value("beta_fast", 32.0)), last = pair(rope.value("beta_slow", 1.0));
      if (rope.value("truncate", true)) first = std::floor(first), last = std::ceil(last);
      first = std::max(first, 0.0);
      const double done = std::clamp((double(i) / 2 - first) / (last - first), 0.0, 1.0);
      f *= done / factor + (1.0 - done);
    }
    result.push_back(f);
  }
  return result;
}

}  // namespace hesper::oracle
