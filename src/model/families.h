#pragma once

#include "model/config.h"
#include "model/config_reader.h"

namespace hesper {

// One reader of config.json a family; parse_config has already seen the model type and the fields nobody supports.
ModelConfig parse_opt_config(const ConfigReader& json);
ModelConfig parse_gpt2_config(const ConfigReader& json);
ModelConfig parse_gpt_neox_config(const ConfigReader& json);
ModelConfig parse_llama_config(const ConfigReader& json);  // llama, mistral, phi3, qwen2, qwen3
ModelConfig parse_gemma_config(const ConfigReader& json);  // gemma2, gemma3_text
ModelConfig parse_llama4_config(const ConfigReader& json);

}  // namespace hesper
