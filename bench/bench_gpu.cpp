// Milliseconds a direction on a GPU, at a model's true shapes (random weights) or of a real model: two-pass products
// and the Gram pass in every way of products over one fp64 primal pass, their errors against fp64, peak memory, the
// share of the bound, and where the time goes. scripts/bench_gpu puts the reference's loop beside it.
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "model/build_program.h"
#include "model/model.h"
#include "model/tensor_names.h"
#include "primal/primal.h"
#include "run/device_memory.h"
#include "tangent/tangent_pass.h"
#include "text/npy.h"
#include "timed_op.h"

namespace hesper {
namespace {

using nlohmann::json;

json shape_of(const std::string& name) {
  if (name == "opt-125m")
    return {{"model_type", "opt"},
            {"vocab_size", 50272},
            {"hidden_size", 768},
            {"num_hidden_layers", 12},
            {"num_attention_heads", 12},
            {"ffn_dim", 3072},
            {"word_embed_proj_dim", 768},
            {"max_position_embeddings", 2048},
            {"activation_function", "relu"},
            {"do_layer_norm_before", true},
            {"tie_word_embeddings", true}};
  if (name == "llama-3.2-1b")
    return {{"model_type", "llama"},
            {"vocab_size", 128256},
            {"hidden_size", 2048},
            {"num_hidden_layers", 16},
            {"num_attention_heads", 32},
            {"num_key_value_heads", 8},
            {"intermediate_size", 8192},
            {"max_position_embeddings", 131072},
            {"hidden_act", "silu"},
            {"rms_norm_eps", 1e-5},
            {"rope_theta", 500000.0},
            {"tie_word_embeddings", true},
            {"head_dim", 64}};
  throw std::invalid_argument("--shape " + name + ": opt-125m or llama-3.2-1b expected");
}

/// As transformers initialises: matrices normal with deviation 0.02, norms one, biases zero.
Tensors random_weights(const std::vector<ParameterSpec>& specs, at::Device device) {
  Tensors out;
  const auto options = at::TensorOptions(at::kFloat).device(device);
  for (const ParameterSpec& spec : specs) {
    if (spec.shape.size() == 2)
      out.push_back(at::randn(spec.shape, options).mul_(0.02));
    else
      out.push_back(spec.name.ends_with(".bias") ? at::zeros(spec.shape, options) : at::ones(spec.shape, options));
  }
  return out;
}

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x[x.size() / 2];
}

/// TFLOP/s of products like a linear layer's with weights of that type, split included.
double rate(Products products, at::ScalarType stored, at::Device device, int64_t width) {
  const auto options = at::TensorOptions(at::kFloat).device(device);
  const at::ScalarType type = splits(products) && stored == at::kBFloat16 ? stored : at::kFloat;
  const Tensor x = at::randn({32768, width}, options), w = at::randn({4 * width, width}, options).to(type);
  std::vector<double> seconds;
  for (int i = 0; i < 8; ++i) {
    synchronize(device);
    const double begin = seconds_now();
    times(x, w.t(), products);
    synchronize(device);
    seconds.push_back(seconds_now() - begin);
  }
  return 2e-12 * 32768 * 4 * static_cast<double>(width * width) / median(seconds);
}

struct Arguments {
  std::string shape = "opt-125m", stored, model, token_ids, json_file, only;
  int64_t tokens = 2048, t = 256, k = 16, sample = 8, repeats = 3;
};

void run(const Arguments& a) {
  const at::NoGradGuard no_grad;
  const at::Device device(at::kCUDA, 0);
  std::optional<Model> model;
  if (!a.model.empty()) model.emplace(load_model(a.model));
  const ModelConfig config = model ? model->config() : parse_config(shape_of(a.shape), a.shape);
  const std::vector<ParameterSpec> specs = model ? model->weights.specs : parameter_table(config);
  at::manual_seed(0);
  at::zeros({1}, at::TensorOptions(at::kFloat).device(device));
  synchronize(device);
  const int64_t context = device_memory(device).used;
  Tensors weights = model ? model->weights.values : random_weights(specs, device);
  if (!a.stored.empty()) {
    const std::optional<at::ScalarType> type = weight_type(a.stored);
    if (!type) throw std::invalid_argument("--stored " + a.stored + ": float32, float16 or bfloat16 expected");
    for (Tensor& w : weights) w = w.to(*type);
  }
  const at::ScalarType stored = weights[0].scalar_type();
  const Tensor ids = a.token_ids.empty()
                         ? at::randint(4, config.vocab, {1, a.tokens}, at::kLong)
                         : read_npy(a.token_ids).flatten().slice(0, 0, a.tokens).to(at::kLong).unsqueeze(0);
  const std::string name_of_all = model ? a.model.substr(a.model.find_last_of('/') + 1) : a.shape;
  const Tokens tokens = make_tokens(ids, ids, device);
  Program program = build_program(config, a.tokens, device), timed = build_program(config, a.tokens, device);
  Seconds seconds;
  TimedOp::wrap(timed, device, seconds);

  Selection here;
  double linear = 0;  // weights of the layers above the selection
  for (size_t p = 0; p < specs.size(); ++p) {
    if (specs[p].block == 0 && specs[p].layer == "self_attn.q_proj" && specs[p].shape.size() == 2)
      here.add(static_cast<int>(p), specs[p].shape, at::arange(a.t));
    if (specs[p].block >= 0 && specs[p].shape.size() == 2)
      linear += static_cast<double>(specs[p].shape[0] * specs[p].shape[1]);
  }
  const Selection selection = here.to(device);

  const double T = static_cast<double>(a.tokens), head = static_cast<double>(config.vocab * config.embed_dim);
  const double tile = T * T * static_cast<double>(config.heads * config.head_dim * config.blocks);
  const double two_pass_flops = 4 * T * (linear + head) + 14 * tile, gram_flops = 2 * T * (linear + head) + 8 * tile;

  json out = {{"shape", name_of_all},
              {"stored", c10::toString(stored)},
              {"device", device_name(device)},
              {"tokens", a.tokens},
              {"t", a.t},
              {"k", a.k}};
  std::cout << fmt::format("{} in {} on {}, T = {}, t = {}, K = {}\n", name_of_all, c10::toString(stored),
                           device_name(device), a.tokens, a.t, a.k);

  // Truth: `sample` columns in fp64, K = 2.
  Tensor exact;
  const Tensor columns = at::arange(a.sample) * (a.t / a.sample);
  {
    const Parameters wide(weights, at::kDouble, device);
    const Tape tape = run_primal(program, wide, selection, tokens, at::kDouble);
    const TangentPass pass(program, wide, selection, tape);
    Tensors rows;
    for (int64_t i = 0; i < a.sample; i += 2) {
      const Tensor v = at::zeros({2, a.t}, at::kDouble).scatter_(1, columns.slice(0, i, i + 2).unsqueeze(1), 1);
      rows.push_back(pass.product(Directions::dense(selection, v, at::kDouble), 0, Curvature::hessian).cpu());
    }
    exact = at::cat(rows);
  }
  const auto error = [&](const Tensor& h) {
    return ((h.cpu().index_select(0, columns) - exact).norm() / exact.norm()).item<double>();
  };

  std::cout << fmt::format("{:24} {:>10} {:>10} {:>10} {:>9} {:>10} {:>9}\n", "row", "ms/dir", "primal ms", "error",
                           "peak GiB", "bound ms", "share");
  const auto report = [&](const std::string& name, double ms, double primal_ms, double err, double bound) {
    const int64_t peak = device_memory(device).used - context;
    std::cout << fmt::format("{:24} {:10.3f} {:10.1f} {:10.1e} {:9.2f} {:10.3f} {:9.2f}\n", name, ms, primal_ms, err,
                             static_cast<double>(peak) / (1 << 30), bound, bound / ms)
              << std::flush;
    out["rows"].push_back({{"row", name},
                           {"ms_a_direction", ms},
                           {"primal_ms", primal_ms},
                           {"error", err},
                           {"peak_bytes", peak},
                           {"bound_ms", bound},
                           {"share_of_bound", bound / ms}});
  };
  const auto parts = [&](const std::string& name, const TangentPass& pass, const Directions& v, bool gram) {
    seconds.clear();
    synchronize(device);
    const double begin = seconds_now();
    gram ? static_cast<void>(pass.second_order(v, 0)) : static_cast<void>(pass.product(v, 0, Curvature::hessian));
    synchronize(device);
    double rest = seconds_now() - begin;
    std::string line = "  " + name + ":";
    json part;
    const auto say = [&](const std::string& what, double s) {
      const double ms = 1e3 * s / static_cast<double>(v.count());
      line += fmt::format(" {} {:.3f}", what, ms);
      part[what] = ms;
    };
    for (const auto& [what, s] : seconds) rest -= s, say(what, s);
    say("head and rest", rest);
    std::cout << line << "\n" << std::flush;
    out["parts"].push_back({{"row", name}, {"ms_a_direction", part}});
  };

  for (const Products products : {Products::bf16x3, Products::bf16, Products::tf32, Products::full}) {
    const std::string name = products == Products::full ? "fp32" : to_string(products);
    if (!a.only.empty() && ("," + a.only + ",").find("," + name + ",") == std::string::npos) continue;
    const double tflops = rate(products, stored, device, config.width);
    const Parameters low(weights, at::kFloat, device, products);
    std::vector<double> primal;
    release_device_memory(device);
    for (int i = 0; i < 2; ++i) {  // the first one warms up
      synchronize(device);
      const double begin = seconds_now();
      run_primal(program, low, selection, tokens, at::kDouble);
      synchronize(device);
      primal.push_back(1e3 * (seconds_now() - begin));
    }
    const Tape tape = run_primal(program, low, selection, tokens, at::kDouble);
    const TangentPass pass(program, low, selection, tape), timed_pass(timed, low, selection, tape);
    {
      std::vector<double> ms;
      Tensors rows;
      pass.product(Directions::units(selection, 0, a.k, at::kFloat), 0, Curvature::hessian);
      for (int64_t i = 0; i < a.t; i += a.k) {
        const Directions v = Directions::units(selection, i, std::min(a.t, i + a.k), at::kFloat);
        synchronize(device);
        const double begin = seconds_now();
        rows.push_back(pass.product(v, 0, Curvature::hessian));
        synchronize(device);
        ms.push_back(1e3 * (seconds_now() - begin) / static_cast<double>(v.count()));
      }
      report("two-pass " + name, median(ms), primal[1], error(at::cat(rows)), two_pass_flops / tflops * 1e-9);
      parts("two-pass " + name, timed_pass, Directions::units(selection, 0, a.k, at::kFloat), false);
    }
    release_device_memory(device);
    {
      std::vector<double> ms;
      Tensor h;
      const Directions v = Directions::units(selection, 0, a.t, at::kFloat);
      for (int64_t i = 0; i < a.repeats + 1; ++i) {
        synchronize(device);
        const double begin = seconds_now();
        const auto forms = pass.second_order(v, 0);
        synchronize(device);
        if (i > 0) ms.push_back(1e3 * (seconds_now() - begin) / static_cast<double>(a.t));
        h = forms.gauss_newton + forms.residual;
      }
      report("Gram " + name, median(ms), primal[1], error(h), gram_flops / tflops * 1e-9);
      parts("Gram " + name, timed_pass, v, true);
    }
    std::cout << fmt::format("  products of {}: {:.0f} TFLOP/s\n", name, tflops);
    out["tflops"][name] = tflops;
  }
  {  // the smallest run: one direction, weights included
    release_device_memory(device);
    const Parameters low(weights, at::kFloat, device, Products::bf16x3);
    const Tape tape = run_primal(program, low, selection, tokens, at::kDouble);
    TangentPass(program, low, selection, tape)
        .product(Directions::units(selection, 0, 1, at::kFloat), 0, Curvature::hessian);
    synchronize(device);
    const int64_t peak = device_memory(device).used - context;
    std::cout << fmt::format("K = 1, primal included: {:.2f} GiB\n", static_cast<double>(peak) / (1 << 30));
    out["peak_bytes_k1"] = peak;
  }
  if (!a.json_file.empty()) std::ofstream(a.json_file) << out.dump(1) << "\n";
}

}  // namespace
}  // namespace hesper

int main(int argc, char** argv) {
  hesper::Arguments a;
  CLI::App app{"ms a direction on a GPU"};
  app.add_option("--shape", a.shape, "opt-125m or llama-3.2-1b, random weights and ids");
  app.add_option("--stored", a.stored, "float32, float16 or bfloat16: what the weights are rounded to first");
  app.add_option("--model", a.model, "a model folder or .gguf file instead");
  app.add_option("--token-ids", a.token_ids, ".npy of ids instead of random ones");
  app.add_option("--tokens", a.tokens);
  app.add_option("--t", a.t, "directions");
  app.add_option("--k", a.k, "directions of one two-pass product");
  app.add_option("--sample", a.sample, "columns compared with fp64");
  app.add_option("--repeats", a.repeats, "of the Gram pass");
  app.add_option("--only", a.only, "bf16x3,bf16,tf32,fp32: those rows alone");
  app.add_option("--json", a.json_file);
  CLI11_PARSE(app, argc, argv);
  try {
    hesper::run(a);
  } catch (const std::exception& e) {
    std::cerr << "bench_gpu: " << e.what() << "\n";
    return 1;
  }
  return 0;
}
