// Rotary frequencies of the twin (twin.h), read from a config.json.
#pragma once

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <string>
#include <vector>

namespace hesper::oracle {

// Inverse frequencies of rotary embedding for windows of T tokens: types default, linear, dynamic, llama3.
inline std::vector<double> rotary_frequencies(const nlohmann::json& config, int64_t head_width, int64_t T) {
  nlohmann::json rope = config.value("rope_scaling", nlohmann::json());
  if (rope.is_null()) rope = config.value("rope_parameters", nlohmann::json());
  if (rope.is_null()) rope = nlohmann::json::object();
  const std::string type = rope.value("rope_type", rope.value("type", std::string("default")));
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
    result.push_back(f);
  }
  return result;
}

}  // namespace hesper::oracle
