#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace hesper {

enum class Phi;  // ops/activation.h

enum class Family { opt, llama };

enum class RopeType { standard, linear, dynamic, llama3, divisors };  // standard is "default" in config.json

struct RopeScaling {
  RopeType type = RopeType::standard;
  double factor = 1;                   // linear, dynamic, llama3
  double low_freq_factor = 1;          // llama3
  double high_freq_factor = 4;         // llama3
  int64_t original_max_positions = 0;  // llama3
  std::vector<double> divisors;        // divisors: (D/2) one for each frequency, from a GGUF file's rope_freqs.weight
};

// What config.json says of a model, with transformers' defaults filled in and every value checked.
struct ModelConfig {
  Family family = Family::opt;
  std::string model_type;     // as in config.json: "opt", "llama", "mistral", "qwen2"
  int64_t vocab = 0;          // V
  int64_t width = 0;          // C
  int64_t heads = 0;          // H
  int64_t kv_heads = 0;       // G, divides H; H for OPT
  int64_t head_dim = 0;       // D; H D need not be C for LLaMA
  int64_t hidden = 0;         // F
  int64_t blocks = 0;         // L
  int64_t max_positions = 0;  // the longest window of OPT; for LLaMA what it was trained for
  double norm_eps = 0;        // of every layer norm or RMS norm
  Phi activation{};
  bool tied_head = false;  // lm_head.weight is the embedding
  std::optional<int64_t> bos_id;
  std::vector<int64_t> eos_ids;

  // OPT
  int64_t embed_dim = 0;    // word_embed_proj_dim; project_in and project_out exist where it is not C (C for LLaMA)
  bool norm_before = true;  // do_layer_norm_before
  bool final_norm = true;   // do_layer_norm_before and not _remove_final_layer_norm
  bool bias = true;         // enable_bias: of the block's linear layers
  bool norm_affine = true;  // layer_norm_elementwise_affine: the norms have gain and bias

  // LLaMA
  double rope_theta = 0;
  RopeScaling rope;
  bool attention_bias = false;  // q, k and v
  bool output_bias = false;     // o
  bool mlp_bias = false;        // gate, up and down
};

// Reads a config.json of model_type opt, llama, mistral or qwen2 (both without sliding window). `file` is the name
// errors start with. Throws std::runtime_error, one line: a value out of range, or, by name, a field that asks for
// mathematics which is not supported. Fields that change nothing here (dropout, initialisation, caches, pretraining_tp)
// are ignored.
ModelConfig parse_config(const nlohmann::json& json, const std::string& file);

// The D/2 angles per position of LLaMA's rotary embedding, as transformers' ROPE_INIT_FUNCTIONS define them, in fp64.
// seqlen (tokens of a window) matters for the dynamic type alone. No supported type scales the cosines and sines.
// Throws std::invalid_argument for a model without rotary embedding or seqlen < 1.
std::vector<double> rotary_inverse_frequencies(const ModelConfig& config, int64_t seqlen);

}  // namespace hesper
