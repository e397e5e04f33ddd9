#pragma once

#include "model/config.h"
#include "model/config_reader.h"

namespace hesper {

// One reader of config.json a family; parse_config has already seen the model type and the fields nobody supports.
ModelConfig parse_opt_config(const ConfigReader& json);
ModelConfig parse_llama_config(const ConfigReader& json);  // llama, mistral, qwen2

}  // namespace hesper
