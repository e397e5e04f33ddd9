// Rotary embedding: what config.json says of it, and the angles that follow.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <numbers>
#include <stdexcept>

#include "model/config_parts.h"

namespace hesper {
namespace {

constexpr const char* original_key = "original_max_position_embeddings";

std::vector<double> read_divisors(const ConfigReader& rope, const char* key, int64_t count) {
  const auto fits = [](const nlohmann::json& value) { return value.is_number() && value >= 1e-6 && value <= 1e6; };
  const nlohmann::json* divisors = rope.find(key);
  if (divisors == nullptr || !divisors->is_array() || std::ssize(*divisors) != count ||
      !std::all_of(divisors->begin(), divisors->end(), fits)) {
    rope.refuse(key, fmt::format("is not a list of {} numbers from 1e-6 to 1e6", count));
  }
  return divisors->get<std::vector<double>>();
}

int64_t read_rotary_dims(const ConfigReader& json, const ConfigReader& rope, const RopeKeys& keys, int64_t head_dim) {
  double partial = 1;
  if (keys.partial == nullptr)
    rope.only("partial_rotary_factor", {1});
  else
    partial = rope.positive("partial_rotary_factor", json.positive(keys.partial, keys.default_partial));
  const double turned = static_cast<double>(head_dim) * partial;
  const int64_t dims = turned < 1e9 ? static_cast<int64_t>(turned) : -1;
  if (dims >= 2 && dims <= head_dim && dims % 2 == 0) return dims;
  throw std::runtime_error(
      partial == 1 ? fmt::format("{}: {}head_dim = {}, a rotary embedding needs an even one", json.file(),
                                 json.prefix(), head_dim)
                   : fmt::format("{}: {:g} of the {} channels of a head are turned, a rotary embedding needs an even "
                                 "number of them",
                                 json.file(), partial, head_dim));
}

// attention_factor, by default m(factor), m(s) = 1 + 0.1 log s for s > 1, else 1; with both mscale and mscale_all_dim
// (0.1 mscale log s + 1) / (0.1 mscale_all_dim log s + 1)
void read_yarn(const ConfigReader& rope, const char* type_key, double theta, RopeScaling& scaling) {
  scaling.beta_fast = rope.positive("beta_fast", 32);
  scaling.beta_slow = rope.positive("beta_slow", 1);
  scaling.truncate = rope.boolean("truncate", true);
  if (theta <= 1) rope.refuse(type_key, fmt::format("with rope_theta = {} is not supported (above 1 is)", theta));
  const auto m = [&](double scale) { return scaling.factor <= 1 ? 1 : 0.1 * scale * std::log(scaling.factor) + 1; };
  const bool both = rope.has("mscale") && rope.has("mscale_all_dim");
  scaling.attention_factor =
      rope.positive("attention_factor", both ? m(rope.positive("mscale")) / m(rope.positive("mscale_all_dim")) : m(1));
}

// attention_factor, by default sqrt(1 + log(factor) / log(original positions)) for a factor > 1, else 1
void read_longrope(const ConfigReader& rope, int64_t pairs, RopeScaling& scaling) {
  scaling.divisors = read_divisors(rope, "short_factor", pairs);
  scaling.long_divisors = read_divisors(rope, "long_factor", pairs);
  const double grown = std::log(scaling.factor) / std::log(static_cast<double>(scaling.original_max_positions));
  scaling.attention_factor = rope.positive("attention_factor", scaling.factor <= 1 ? 1 : std::sqrt(1 + grown));
}

}  // namespace

void read_rope(const ConfigReader& json, const RopeKeys& keys, ModelConfig& config) {
  const nlohmann::json* scaling = json.find("rope_scaling");
  const bool older = scaling != nullptr && !(scaling->is_object() && scaling->empty());
  const char* key = older ? "rope_scaling" : "rope_parameters";
  const nlohmann::json* found = json.find(key);
  static const nlohmann::json nothing = nlohmann::json::object();
  read_rope_object(json, ConfigReader(found == nullptr ? nothing : *found, json.file(), json.prefix() + key + "."),
                   keys, config);
}

void read_rope_object(const ConfigReader& json, const ConfigReader& rope, const RopeKeys& keys, ModelConfig& config) {
  static const std::map<std::string, RopeType> known = {
      {"default", RopeType::standard}, {"linear", RopeType::linear},     {"dynamic", RopeType::dynamic},
      {"llama3", RopeType::llama3},    {"yarn", RopeType::yarn},         {"longrope", RopeType::longrope},
      {"su", RopeType::longrope},      {"divisors", RopeType::divisors},
  };
  config.rope_theta = rope.positive("rope_theta", json.positive(keys.theta, keys.default_theta));
  const char* type_key = rope.has("rope_type") ? "rope_type" : "type";
  const std::string type = rope.text(type_key, "default");
  const auto it = known.find(type);
  const bool phi = keys.own_original.has_value();
  if (it == known.end() || (it->second == RopeType::divisors && !json.from_gguf()) || (type == "su" && !phi))
    rope.refuse(type_key, "is not supported (default, linear, dynamic, llama3, yarn, longrope are)");
  if (phi && it->second != RopeType::standard && it->second != RopeType::longrope)
    rope.refuse(type_key, "is not supported (default, longrope are)");
  rope.only("type", {type});
  const bool scales = it->second == RopeType::yarn || it->second == RopeType::longrope;
  if (!scales) rope.only("attention_factor", {1});
  for (const auto& [name, value] : rope.object().items()) {
    if (value.is_object()) rope.refuse(name.c_str(), "is not supported: rotary parameters by type of layer");
  }
  config.rotary_dims = read_rotary_dims(json, rope, keys, config.head_dim);

  RopeScaling& scaling = config.rope;
  scaling.type = it->second;
  if (scaling.type == RopeType::standard) return;
  if (scaling.type == RopeType::divisors) {
    scaling.divisors = read_divisors(rope, "divisors", config.rotary_dims / 2);
    return;
  }
  if (scales || scaling.type == RopeType::llama3) {
    const int64_t inside =
        phi ? *keys.own_original : rope.integer(original_key, 2, max_position_count, config.max_positions);
    scaling.original_max_positions = json.integer(original_key, 2, max_position_count, inside);
  }
  // Both take it from the lengths where it is not said.
  const double grown =
      scales ? static_cast<double>(config.max_positions) / static_cast<double>(scaling.original_max_positions) : 1;
  scaling.factor = rope.positive("factor", scales ? std::optional(grown) : std::nullopt);
  if (scaling.type == RopeType::yarn) read_yarn(rope, type_key, config.rope_theta, scaling);
  if (scaling.type == RopeType::longrope) read_longrope(rope, config.rotary_dims / 2, scaling);
  if (scaling.type == RopeType::dynamic && config.rotary_dims == 2) {
    json.refuse("head_dim", "is too small for dynamic rotary scaling, whose exponent is D/(D-2)");
  }
  if (scaling.type != RopeType::llama3) return;
  scaling.low_freq_factor = rope.positive("low_freq_factor");
  scaling.high_freq_factor = rope.positive("high_freq_factor");
  if (scaling.high_freq_factor < scaling.low_freq_factor) {
    rope.refuse("high_freq_factor", fmt::format("is below low_freq_factor = {}", scaling.low_freq_factor));
  }
}

namespace {

// llama3: wavelengths above T0/low are stretched by factor, below T0/high kept, linearly blended in between (of LLaMA
// 4, whose two bounds are one, nothing is in between)
double llama3_frequency(const RopeScaling& rope, double frequency) {
  const double low = rope.low_freq_factor, high = rope.high_freq_factor;
  const double turns = static_cast<double>(rope.original_max_positions) * frequency / (2 * std::numbers::pi);
  const double smooth = high > low ? std::clamp((turns - low) / (high - low), 0.0, 1.0) : turns < low ? 0.0 : 1.0;
  return (1 - smooth) * frequency / rope.factor + smooth * frequency;
}

// yarn: pair i turns r times over the T0 original positions where i = D log(T0 / (2 pi r)) / (2 log theta). Pairs from
// the one of beta_slow turns on are stretched by factor, those up to the one of beta_fast turns are kept, and between
// them it is blended linearly in i.
struct YarnRamp {
  double begin, end;

  YarnRamp(const RopeScaling& rope, double theta, double dim) {
    const auto pair = [&](double turns) {
      const auto positions = static_cast<double>(rope.original_max_positions);
      return dim * std::log(positions / (turns * 2 * std::numbers::pi)) / (2 * std::log(theta));
    };
    begin = pair(rope.beta_fast), end = pair(rope.beta_slow);
    if (rope.truncate) begin = std::floor(begin), end = std::ceil(end);
    begin = std::max(begin, 0.0), end = std::min(end, dim - 1);
    if (begin == end) end += 0.001;  // transformers' own
  }
  double stretched(int64_t i) const { return std::clamp((static_cast<double>(i) - begin) / (end - begin), 0.0, 1.0); }
};

}  // namespace

RotaryAngles rotary_angles(const ModelConfig& config, int64_t seqlen, int64_t block) {
  if (config.rotary_dims == 0 || seqlen < 1) {
    throw std::invalid_argument(
        fmt::format("[rotary] no frequencies for a model of type {} and {} tokens", config.model_type, seqlen));
  }
  const bool local = config.local_rope_theta > 0 && config.window.at(static_cast<size_t>(block)) > 0;
  const RopeScaling unscaled, &rope = local ? unscaled : config.rope;
  const auto dim = static_cast<double>(config.rotary_dims);
  const auto trained = static_cast<double>(config.max_positions);
  const double tokens = std::max(static_cast<double>(seqlen), trained);

  // dynamic: theta' = theta (factor T / T0 - (factor - 1))^(D / (D - 2)), T0 the trained length, T at least T0
  double theta = local ? config.local_rope_theta : config.rope_theta;
  if (rope.type == RopeType::dynamic) {
    theta *= std::pow(rope.factor * tokens / trained - (rope.factor - 1), dim / (dim - 2));
  }
  const bool longer = rope.type == RopeType::longrope && seqlen > rope.original_max_positions;
  const std::vector<double>& divisors = longer ? rope.long_divisors : rope.divisors;
  std::optional<YarnRamp> ramp;
  if (rope.type == RopeType::yarn) ramp.emplace(rope, theta, dim);

  RotaryAngles angles{{}, rope.attention_factor};
  for (int64_t i = 0; i < config.rotary_dims / 2; ++i) {
    double frequency = 1 / std::pow(theta, static_cast<double>(2 * i) / dim);
    if (rope.type == RopeType::linear) frequency /= rope.factor;
    if (rope.type == RopeType::llama3) frequency = llama3_frequency(rope, frequency);
    if (ramp) frequency *= ramp->stretched(i) / rope.factor + 1 - ramp->stretched(i);
    if (!divisors.empty()) frequency /= divisors[static_cast<size_t>(i)];
    angles.inverse_frequencies.push_back(frequency);
  }
  return angles;
}

}  // namespace hesper
