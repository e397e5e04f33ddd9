#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace hesper {

enum class Phi;  // ops/activation.h

enum class Family { opt, llama, gpt2, gpt_neox, gemma, llama4 };  // gemma: Gemma 2 and 3

enum class RopeType { standard, linear, dynamic, llama3, yarn, longrope, divisors };  // standard: "default"

struct RopeScaling {
  RopeType type = RopeType::standard;
  double factor = 1;                     // linear, dynamic, llama3, yarn
  double low_freq_factor = 1;            // llama3
  double high_freq_factor = 4;           // llama3
  double beta_fast = 32, beta_slow = 1;  // yarn: turns over the original positions where it begins and is whole
  bool truncate = true;                  // yarn: the pairs with these turns are rounded outwards
  double attention_factor = 1;           // yarn, longrope: of cosines and sines
  int64_t original_max_positions = 0;    // llama3, yarn, longrope
  // (D/2) one for each frequency. longrope: of windows of at most original_max_positions tokens, and of longer ones.
  // divisors: of all, from a GGUF file's rope_freqs.weight.
  std::vector<double> divisors, long_divisors;
};

// What config.json says of a model, with transformers' defaults filled in and every value checked.
struct ModelConfig {
  Family family = Family::opt;
  std::string model_type;      // as in config.json: "opt", "llama", "mistral", "qwen2", ...
  bool language_part = false;  // of a multimodal checkpoint, whose other tensors are left alone
  int64_t vocab = 0;           // V
  int64_t width = 0;           // C
  int64_t heads = 0;           // H
  int64_t kv_heads = 0;        // G, divides H
  int64_t head_dim = 0;        // D; H D need not be C
  int64_t hidden = 0;          // F
  int64_t blocks = 0;          // L
  int64_t max_positions = 0;   // the longest window where positions are learned, else what it was trained for
  double norm_eps = 0;         // of every layer norm or RMS norm
  Phi activation{};
  bool tied_head = false;  // lm_head.weight is the embedding
  std::optional<int64_t> bos_id;
  std::vector<int64_t> eos_ids;

  // Attention
  double attention_scale = 1;    // c of its scores
  double attention_softcap = 0;  // 0: none
  std::vector<int64_t> window;   // (L) keys that a token of the block sees, itself among them; 0: all before it
  bool attention_bias = false;   // of q, k and v
  bool output_bias = false;      // of what follows the heads
  bool qk_norm = false;          // queries and keys are normed head by head

  // Rotary embedding
  int64_t rotary_dims = 0;  // channels of a head that are turned; 0: positions are learned
  double rope_theta = 0;
  RopeScaling rope;
  double local_rope_theta = 0;  // of the blocks with a window, unscaled; 0: as everywhere

  // OPT
  int64_t embed_dim = 0;    // word_embed_proj_dim; project_in and project_out exist where it is not C (C elsewhere)
  bool norm_before = true;  // do_layer_norm_before
  bool final_norm = true;   // do_layer_norm_before and not _remove_final_layer_norm
  bool bias = true;         // enable_bias: of the block's linear layers
  bool norm_affine = true;  // layer_norm_elementwise_affine: the norms have gain and bias

  bool mlp_bias = false;          // LLaMA: gate, up and down
  bool gains_less_one = false;    // Gemma 1, else as LLaMA: gains are stored less one, embeddings times sqrt(C)
  bool fused_layers = false;      // Phi-3: q, k, v in one matrix, gate and up in another
  bool scale_by_block = false;    // GPT-2: scores of block i over i + 1
  bool parallel_residual = true;  // GPT-NeoX: both halves of a block read its input
  double logits_softcap = 0;      // Gemma 2; 0: none

  // LLaMA 4
  int64_t experts = 0;             // E of a mixture
  int64_t experts_per_token = 1;   // slots
  std::vector<char> moe;           // (L) 1: the block has a mixture, 0: a dense MLP
  int64_t dense_hidden = 0;        // hidden width of a dense MLP; `hidden` is that of an expert
  std::vector<char> rotary_block;  // (L) 0: no rotary embedding, queries scaled by position
  int64_t chunk = 0;               // tokens of an attention chunk; 0: none
  std::vector<char> chunked;       // (L)
  bool temperature = false;        // queries of blocks without rotary embedding: times
  double temperature_floor = 1;    // 1 + temperature_scale log(1 + floor((t + 1) / temperature_floor)) at position t
  double temperature_scale = 0;
};

class Checkpoint;

// The language model of a checkpoint's config.json or GGUF file.
ModelConfig parse_config(const Checkpoint& checkpoint);
// The model types that parse_config reads.
std::vector<std::string> supported_model_types();

// Reads a config.json; of llama4 and gemma3 its text_config. `file` is the name errors start with. `from_gguf`: json
// stands for the metadata of a GGUF file, which may ask for rotary divisors. Throws std::runtime_error, one line: a
// value out of range, or, by name, a field that asks for mathematics which is not supported. Fields that change nothing
// here (dropout, initialisation, caches, pretraining_tp) are ignored.
ModelConfig parse_config(const nlohmann::json& json, const std::string& file, bool from_gguf = false);

// How a block's rotary embedding turns the pairs of channels of queries and keys.
struct RotaryAngles {
  std::vector<double> inverse_frequencies;  // angle per position, one for each pair that is turned
  double factor = 1;                        // the pairs are multiplied by it besides
};

// As transformers' ROPE_INIT_FUNCTIONS define them, in fp64. seqlen (tokens of a window) matters for the types dynamic
// and longrope. Throws std::invalid_argument for a model without rotary embedding or seqlen < 1.
RotaryAngles rotary_angles(const ModelConfig& config, int64_t seqlen, int64_t block = 0);

}  // namespace hesper
