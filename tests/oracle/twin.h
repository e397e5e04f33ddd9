// A twin of every model family in plain C++, templated on the scalar: the oracle for second derivatives.
// `run_twin` with S = double gives loss, logits and gradient; with S = std::complex<double>, H v (twin_ops.h says how).
#pragma once

#include <nlohmann/json.hpp>

#include "oracle/twin_ops.h"
#include "oracle/twin_rotary.h"

namespace hesper::oracle {

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
    h = run.attention(run.linear(h, self + "q_proj"), run.linear(h, self + "k_proj"), run.linear(h, self + "v_proj"),
                      {H, H, 1 / std::sqrt(double(C / H))});
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

// LLaMA, Mistral, Qwen 2 and 3, Phi-3, Gemma 1
template <class S>
Var<S> llama_logits(Program<S>& run, const nlohmann::json& config, const std::vector<int64_t>& ids) {
  const std::string type = config.at("model_type");
  const int64_t C = config.at("hidden_size"), H = config.at("num_attention_heads"), F = config.at("intermediate_size"),
                G = config.value("num_key_value_heads", H);
  const int64_t D = config.value("head_dim", C / H);
  const double eps = config.at("rms_norm_eps");
  auto frequencies =
      rotary_frequencies(config, int64_t(double(D) * config.value("partial_rotary_factor", 1.0)), int64_t(ids.size()));
  const auto turned = [&](Var<S> x) { return run.rotary(x, frequencies, D, false, rotary_factor(config)); };
  const bool windows = config.contains("sliding_window") && !config.at("sliding_window").is_null() &&
                       config.value("use_sliding_window", type == "mistral" || type == "phi3");

  const bool gemma = type == "gemma";
  const auto norm = [&](Var<S> y, const std::string& name, int64_t heads = 1) {
    return run.norm(y, name, eps, false, heads, gemma ? 1 : 0);
  };
  auto x = run.embedding("model.embed_tokens.weight", C, ids);
  if (gemma) x = run.scale(x, {std::sqrt(double(C))});
  for (int64_t i = 0; i < config.at("num_hidden_layers").get<int64_t>(); ++i) {
    const std::string block = "model.layers." + std::to_string(i) + ".", self = block + "self_attn.",
                      mlp = block + "mlp.";
    Attention shape{H, G, 1 / std::sqrt(double(D))};
    if (windows && i >= config.value("max_window_layers", 0)) shape.window = config.at("sliding_window");
    auto h = norm(x, block + "input_layernorm");
    Var<S> q, k, v, gate, up;
    if (type == "phi3") {
      const auto qkv = run.linear(h, self + "qkv_proj");
      const int64_t all = (H + 2 * G) * D;
      q = run.channels(qkv, all, 0, H * D), k = run.channels(qkv, all, H * D, (H + G) * D);
      v = run.channels(qkv, all, (H + G) * D, all);
    } else {
      q = run.linear(h, self + "q_proj"), k = run.linear(h, self + "k_proj"), v = run.linear(h, self + "v_proj");
    }
    if (type == "qwen3") {
      q = norm(q, self + "q_norm", H);
      k = norm(k, self + "k_norm", G);
    }
    h = run.attention(turned(q), turned(k), v, shape);
    x = run.add(x, run.linear(h, self + "o_proj"));
    h = norm(x, block + "post_attention_layernorm");
    if (type == "phi3") {
      const auto both = run.linear(h, mlp + "gate_up_proj");
      gate = run.channels(both, 2 * F, 0, F), up = run.channels(both, 2 * F, F, 2 * F);
    } else {
      gate = run.linear(h, mlp + "gate_proj"), up = run.linear(h, mlp + "up_proj");
    }
    gate = run.activation(gate, gemma ? "gelu_pytorch_tanh" : config.at("hidden_act").get<std::string>());
    x = run.add(x, run.linear(run.multiply(gate, up), mlp + "down_proj"));
  }
  x = norm(x, "model.norm");
  return run.linear(x, config.at("tie_word_embeddings").get<bool>() ? "model.embed_tokens" : "lm_head");
}

template <class S>
Var<S> gemma_logits(Program<S>& run, const nlohmann::json& config, const std::vector<int64_t>& ids) {
  const int64_t C = config.at("hidden_size"), H = config.at("num_attention_heads"),
                G = config.at("num_key_value_heads"), D = config.at("head_dim"), T = int64_t(ids.size());
  const double eps = config.at("rms_norm_eps");
  const bool third = config.at("model_type") == "gemma3_text";
  const auto number = [&](const char* key) {
    return config.contains(key) && !config.at(key).is_null() ? config.at(key).get<double>() : 0.0;
  };
  auto norm = [&](Var<S> y, const std::string& name, int64_t heads = 1) {
    return run.norm(y, name, eps, false, heads, 1);
  };
  auto x = run.scale(run.embedding("model.embed_tokens.weight", C, ids), {std::sqrt(double(C))});
  for (int64_t i = 0; i < config.at("num_hidden_layers").get<int64_t>(); ++i) {
    const std::string block = "model.layers." + std::to_string(i) + ".", self = block + "self_attn.",
                      mlp = block + "mlp.";
    const bool local = config.contains("layer_types")
                           ? config.at("layer_types").at(size_t(i)) == "sliding_attention"
                           : (i + 1) % config.value("sliding_window_pattern", int64_t(2)) != 0;
    Attention shape{H, G, 1 / std::sqrt(number("query_pre_attn_scalar"))};
    shape.cap = number("attn_logit_softcapping");
    if (local) shape.window = config.at("sliding_window");
    nlohmann::json rope = config;
    if (third && config.contains("rope_parameters"))
      rope = {{"rope_parameters", config.at("rope_parameters").at(local ? "sliding_attention" : "full_attention")}};
    else if (third && local)
      rope = {{"rope_theta", config.at("rope_local_base_freq")}};
    const auto frequencies = rotary_frequencies(rope, D, T);
    auto h = norm(x, block + "input_layernorm");
    auto q = run.linear(h, self + "q_proj"), k = run.linear(h, self + "k_proj"), v = run.linear(h, self + "v_proj");
    if (third) q = norm(q, self + "q_norm", H), k = norm(k, self + "k_norm", G);
    h = run.attention(run.rotary(q, frequencies, D), run.rotary(k, frequencies, D), v, shape);
    x = run.add(x, norm(run.linear(h, self + "o_proj"), block + "post_attention_layernorm"));
    h = norm(x, block + "pre_feedforward_layernorm");
    auto gate = run.activation(run.linear(h, mlp + "gate_proj"), config.at("hidden_activation"));
    h = run.linear(run.multiply(gate, run.linear(h, mlp + "up_proj")), mlp + "down_proj");
    x = run.add(x, norm(h, block + "post_feedforward_layernorm"));
  }
  x = norm(x, "model.norm");
  auto z = run.linear(x, config.at("tie_word_embeddings").get<bool>() ? "model.embed_tokens" : "lm_head");
  const double cap = number("final_logit_softcapping");
  return cap > 0 ? run.softcap(z, cap) : z;
}

template <class S>
Var<S> gpt2_logits(Program<S>& run, const nlohmann::json& config, const std::vector<int64_t>& ids) {
  const int64_t C = config.at("n_embd"), H = config.at("n_head");
  const double eps = config.at("layer_norm_epsilon");
  std::vector<int64_t> positions(ids.size());
  for (size_t t = 0; t < ids.size(); ++t) positions[t] = int64_t(t);
  auto x =
      run.add(run.embedding("transformer.wte.weight", C, ids), run.embedding("transformer.wpe.weight", C, positions));
  for (int64_t i = 0; i < config.at("n_layer").get<int64_t>(); ++i) {
    const std::string block = "transformer.h." + std::to_string(i) + ".";
    Attention shape{H, H, config.value("scale_attn_weights", true) ? 1 / std::sqrt(double(C / H)) : 1.0};
    if (config.value("scale_attn_by_inverse_layer_idx", false)) shape.scale /= double(i + 1);
    auto qkv = run.linear(run.norm(x, block + "ln_1", eps, true), block + "attn.c_attn", true);
    auto part = [&](int64_t n) { return run.channels(qkv, 3 * C, n * C, (n + 1) * C); };
    x = run.add(x, run.linear(run.attention(part(0), part(1), part(2), shape), block + "attn.c_proj", true));
    auto h = run.linear(run.norm(x, block + "ln_2", eps, true), block + "mlp.c_fc", true);
    x = run.add(x, run.linear(run.activation(h, config.at("activation_function")), block + "mlp.c_proj", true));
  }
  x = run.norm(x, "transformer.ln_f", eps, true);
  return run.linear(x, config.value("tie_word_embeddings", true) ? "transformer.wte" : "lm_head");
}

template <class S>
Var<S> gpt_neox_logits(Program<S>& run, const nlohmann::json& config, const std::vector<int64_t>& ids) {
  const int64_t C = config.at("hidden_size"), H = config.at("num_attention_heads"), D = C / H;
  const double eps = config.at("layer_norm_eps");
  const nlohmann::json rope = {{"rope_theta", config.at("rotary_emb_base")}};
  const auto frequencies =
      rotary_frequencies(rope, int64_t(double(D) * config.at("rotary_pct").get<double>()), int64_t(ids.size()));
  auto x = run.embedding("gpt_neox.embed_in.weight", C, ids);
  for (int64_t i = 0; i < config.at("num_hidden_layers").get<int64_t>(); ++i) {
    const std::string block = "gpt_neox.layers." + std::to_string(i) + ".";
    auto qkv = run.linear(run.norm(x, block + "input_layernorm", eps, true), block + "attention.query_key_value");
    auto part = [&](int64_t n) { return run.channels(qkv, 3 * D, n * D, (n + 1) * D); };
    auto h = run.attention(run.rotary(part(0), frequencies, D), run.rotary(part(1), frequencies, D), part(2),
                           {H, H, 1 / std::sqrt(double(D))});
    auto attended = run.linear(h, block + "attention.dense");
    if (!config.at("use_parallel_residual").get<bool>()) x = run.add(x, attended);
    h = run.linear(run.norm(x, block + "post_attention_layernorm", eps, true), block + "mlp.dense_h_to_4h");
    h = run.linear(run.activation(h, config.at("hidden_act")), block + "mlp.dense_4h_to_h");
    x = run.add(x, h);
    if (config.at("use_parallel_residual").get<bool>()) x = run.add(x, attended);
  }
  x = run.norm(x, "gpt_neox.final_layer_norm", eps, true);
  return run.linear(x, config.at("tie_word_embeddings").get<bool>() ? "gpt_neox.embed_in" : "lm_head");
}

template <class S>
Var<S> llama4_logits(Program<S>& run, const nlohmann::json& config, const std::vector<int64_t>& ids) {
  const int64_t C = config.at("hidden_size"), H = config.at("num_attention_heads"),
                G = config.at("num_key_value_heads"), D = config.at("head_dim"), L = config.at("num_hidden_layers");
  const double eps = config.at("rms_norm_eps");
  const auto frequencies = rotary_frequencies(config, D, int64_t(ids.size()));
  auto gated = [&](Var<S> h, const std::string& mlp) {
    auto gate = run.activation(run.linear(h, mlp + "gate_proj"), config.at("hidden_act"));
    return run.linear(run.multiply(gate, run.linear(h, mlp + "up_proj")), mlp + "down_proj");
  };
  auto x = run.embedding("model.embed_tokens.weight", C, ids);
  for (int64_t i = 0; i < L; ++i) {
    const std::string block = "model.layers." + std::to_string(i) + ".", self = block + "self_attn.",
                      mlp = block + "feed_forward.";
    const bool turned = config.contains("no_rope_layers")
                            ? config.at("no_rope_layers").at(size_t(i)) == 1
                            : (i + 1) % config.at("no_rope_layer_interval").get<int64_t>() != 0;
    Attention shape{H, G, 1 / std::sqrt(double(D))};
    if (turned) shape.chunk = config.at("attention_chunk_size");
    auto h = run.norm(x, block + "input_layernorm", eps, false);
    auto q = run.linear(h, self + "q_proj"), k = run.linear(h, self + "k_proj"), v = run.linear(h, self + "v_proj");
    if (turned) q = run.rotary(q, frequencies, D, true), k = run.rotary(k, frequencies, D, true);
    if (turned && config.at("use_qk_norm").get<bool>())
      q = run.norm(q, "", eps, false, H), k = run.norm(k, "", eps, false, G);
    if (!turned && config.at("attn_temperature_tuning").get<bool>()) {
      std::vector<double> factors;
      for (size_t t = 0; t < ids.size(); ++t)
        factors.push_back(1 + config.at("attn_scale").get<double>() *
                                  std::log1p(std::floor((double(t) + 1) / config.at("floor_scale").get<double>())));
      q = run.scale(q, factors);
    }
    x = run.add(x, run.linear(run.attention(q, k, v, shape), self + "o_proj"));
    h = run.norm(x, block + "post_attention_layernorm", eps, false);
    if (!run.has(mlp + "router.weight")) {
      x = run.add(x, gated(h, mlp));
      continue;
    }
    auto logits = run.linear(h, mlp + "router");
    auto y = gated(h, mlp + "shared_expert.");
    for (int64_t slot = 0; slot < config.at("num_experts_per_tok").get<int64_t>(); ++slot)
      y = run.add(y, run.expert(h, logits, mlp + "experts.", slot));
    x = run.add(x, y);
  }
  x = run.norm(x, "model.norm", eps, false);
  return run.linear(x, config.at("tie_word_embeddings").get<bool>() ? "model.embed_tokens" : "lm_head");
}

template <class S>
Var<S> logits_of(Program<S>& run, const nlohmann::json& config, const std::vector<int64_t>& ids) {
  const std::string type = config.at("model_type");
  if (type == "opt") return opt_logits(run, config, ids);
  if (type == "gpt2") return gpt2_logits(run, config, ids);
  if (type == "gpt_neox") return gpt_neox_logits(run, config, ids);
  if (type == "gemma2" || type == "gemma3_text") return gemma_logits(run, config, ids);
  if (type == "llama4_text") return llama4_logits(run, config, ids);
  return llama_logits(run, config, ids);
}

// Loss, logits and gradient of the mean over windows; ids and labels are b windows of T tokens each.
template <class S>
TwinResult<S> run_twin(const nlohmann::json& config, const Weights<S>& weights,
                       const std::vector<std::vector<int64_t>>& ids, const std::vector<std::vector<int64_t>>& labels) {
  Program<S> run(weights);
  TwinResult<S> result;
  const double weight = 1.0 / double(ids.size());
  for (size_t s = 0; s < ids.size(); ++s) {
    auto z = logits_of(run, config, ids[s]);
    result.window_losses.push_back(run.cross_entropy(z, labels[s], weight));
    result.loss += weight * result.window_losses.back();
    result.logits.push_back(z->value);
    run.backward();
  }
  result.gradient = run.gradient();
  return result;
}

}  // namespace hesper::oracle
