// Any JSON as a config.json: read, or refused with std::runtime_error; never anything else.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "model/config.h"
#include "model/tensor_names.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto json = nlohmann::json::parse(data, data + size, nullptr, false);
  if (json.is_discarded()) return 0;
  try {
    const hesper::ModelConfig config = hesper::parse_config(json, "config.json");
    // What an accepted config promises: positive extents, and finite positive frequencies where there are any.
    if (config.blocks <= 64) {
      for (const auto& spec : hesper::parameter_table(config)) {
        int64_t elements = 1;
        for (const int64_t extent : spec.shape) {
          if (extent < 1 || __builtin_mul_overflow(elements, extent, &elements)) std::abort();
        }
      }
    }
    if (config.rotary_dims > 0 && config.rotary_dims <= 1024) {
      for (const int64_t block : {int64_t{0}, config.blocks - 1}) {
        const hesper::RotaryAngles angles = hesper::rotary_angles(config, 4096, block);
        if (!std::isfinite(angles.factor)) std::abort();
        for (const double frequency : angles.inverse_frequencies) {
          if (!std::isfinite(frequency) || frequency < 0) std::abort();
        }
      }
    }
  } catch (const std::runtime_error&) {
  }
  return 0;
}
