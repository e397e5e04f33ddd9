// A twin of the OPT and LLaMA families in plain C++, templated on the scalar: the oracle for second derivatives.
// `run_twin` with S = double gives loss, logits and gradient; with S = std::complex<double>, H v (twin_ops.h says how).
#pragma once

#include <nlohmann/json.hpp>

#include "oracle/twin_ops.h"

namespace hesper::oracle {

// Inverse frequencies of rotary embedding for windows of T tokens: types default, linear, dynamic, llama3.
inline std::vector<double> rotary_frequencies(const nlohmann::json& config, int64_t head_width, int64_t T) {
  nlohmann::json rope = config.value("rope_parameters", config.value("rope_scaling", nlohmann::json()));
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

template <class S>
struct TwinResult {
  S loss = 0;                          // mean over windows
  std::vector<S> window_losses;        // (b)
  std::vector<std::vector<S>> logits;  // b of (T V)
  Weights<S> gradient;                 // of loss; a tied head adds to the embedding's
};

template <class S>
Var<S> opt_logits(Program<S>& run, const nlohmann::json& config, const std::vector<int64_t>& ids) {
  const std::string root = "model.decoder.";
  const int64_t C = config.at("hidden_size"), E = config.value("word_embed_proj_dim", C),
                H = config.at("num_attention_heads");
  const bool before = config.at("do_layer_norm_before");
  const double eps = 1e-5;
  std::vector<int64_t> positions(ids.size());
  for (size_t t = 0; t < ids.size(); ++t) positions[t] = int64_t(t);

  auto x = run.embedding(root + "embed_tokens.weight", E, ids);
  if (E != C) x = run.linear(x, root + "project_in");
  x = run.add(x, run.embedding(root + "embed_positions.weight", C, positions, 2));
  for (int64_t i = 0; i < config.at("num_hidden_layers").get<int64_t>(); ++i) {
    const std::string block = root + "layers." + std::to_string(i) + ".", self = block + "self_attn.";
    auto normed = [&](Var<S> y, const char* name) { return run.norm(y, block + name, eps, true); };
    auto h = before ? normed(x, "self_attn_layer_norm") : x;
    h = run.attention(run.linear(h, self + "q_proj"), run.linear(h, self + "k_proj"), run.linear(h, self + "v_proj"), H,
                      H);
    x = run.add(x, run.linear(h, self + "out_proj"));
    if (!before) x = normed(x, "self_attn_layer_norm");
    h = before ? normed(x, "final_layer_norm") : x;
    h = run.activation(run.linear(h, block + "fc1"), config.at("activation_function"));
    x = run.add(x, run.linear(h, block + "fc2"));
    if (!before) x = normed(x, "final_layer_norm");
  }
  if (before && !config.value("_remove_final_layer_norm", false)) x = run.norm(x, root + "final_layer_norm", eps, true);
  if (E != C) x = run.linear(x, root + "project_out");
  return run.linear(x, root + "embed_tokens");
}

template <class S>
Var<S> llama_logits(Program<S>& run, const nlohmann::json& config, const std::vector<int64_t>& ids) {
  const int64_t C = config.at("hidden_size"), H = config.at("num_attention_heads"),
                G = config.value("num_key_value_heads", H);
  const int64_t D = config.value("head_dim", C / H);
  const double eps = config.at("rms_norm_eps");
  const auto frequencies = rotary_frequencies(config, D, int64_t(ids.size()));

  auto x = run.embedding("model.embed_tokens.weight", C, ids);
  for (int64_t i = 0; i < config.at("num_hidden_layers").get<int64_t>(); ++i) {
    const std::string block = "model.layers." + std::to_string(i) + ".", self = block + "self_attn.",
                      mlp = block + "mlp.";
    auto h = run.norm(x, block + "input_layernorm", eps, false);
    auto q = run.rotary(run.linear(h, self + "q_proj"), frequencies);
    auto k = run.rotary(run.linear(h, self + "k_proj"), frequencies);
    h = run.attention(q, k, run.linear(h, self + "v_proj"), H, G);
    x = run.add(x, run.linear(h, self + "o_proj"));
    h = run.norm(x, block + "post_attention_layernorm", eps, false);
    auto gate = run.activation(run.linear(h, mlp + "gate_proj"), config.at("hidden_act"));
    x = run.add(x, run.linear(run.multiply(gate, run.linear(h, mlp + "up_proj")), mlp + "down_proj"));
  }
  x = run.norm(x, "model.norm", eps, false);
  return run.linear(x, config.at("tie_word_embeddings").get<bool>() ? "model.embed_tokens" : "lm_head");
}

// Loss, logits and gradient of the mean over windows; ids and labels are b windows of T tokens each.
template <class S>
TwinResult<S> run_twin(const nlohmann::json& config, const Weights<S>& weights,
                       const std::vector<std::vector<int64_t>>& ids, const std::vector<std::vector<int64_t>>& labels) {
  Program<S> run(weights);
  TwinResult<S> result;
  const double weight = 1.0 / double(ids.size());
  for (size_t s = 0; s < ids.size(); ++s) {
    auto z = config.at("model_type") == "opt" ? opt_logits(run, config, ids[s]) : llama_logits(run, config, ids[s]);
    result.window_losses.push_back(run.cross_entropy(z, labels[s], weight));
    result.loss += weight * result.window_losses.back();
    result.logits.push_back(z->value);
    run.backward();
  }
  result.gradient = run.gradient();
  return result;
}

}  // namespace hesper::oracle
