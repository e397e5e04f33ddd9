#pragma once
// Small random programs of both families, built straight from the calls: no checkpoint, no config.
#include <ATen/ATen.h>

#include <cmath>
#include <memory>

#include "model/config.h"
#include "model/program.h"
#include "ops/parameters.h"
#include "ops/selection.h"
#include "primal/primal.h"

namespace hesper::test {

struct Toy {
  std::unique_ptr<Program> program;
  std::vector<std::string> names;
  Tensors values;  // fp64
  Tokens tokens;

  Parameters parameters(at::ScalarType working = at::kDouble, at::Device device = at::kCPU,
                        Products products = Products::full) const {
    return {values, working, device, products};
  }
  Selection select(const std::vector<std::pair<std::string, std::vector<int64_t>>>& entries) const {
    Selection s;
    for (const auto& [name, flat] : entries) {
      const int p = program->parameter(name);
      s.add(p, values.at(p).sizes(), at::tensor(flat));
    }
    return s;
  }
  /// m entries of every parameter (all of them where it has fewer).
  Selection select_everywhere(int64_t m) const {
    Selection s;
    for (size_t p = 0; p < values.size(); ++p)
      s.add(static_cast<int>(p), values[p].sizes(),
            at::randperm(values[p].numel()).narrow(0, 0, std::min(m, values[p].numel())));
    return s;
  }
};

struct ToyShape {
  bool llama = false;
  int64_t vocab = 31, width = 16, heads = 4, kv_heads = 4, hidden = 24, blocks = 2, windows = 2, tokens = 7;
  Phi phi = Phi::gelu;
  bool tied = true, pre_norm = true;
};

/// devices: of the program; the tokens are on the first.
inline Toy make_toy(const ToyShape& c, at::ArrayRef<at::Device> devices = at::Device(at::kCPU)) {
  at::manual_seed(5);
  Toy toy;
  const int64_t d = c.width / c.heads, kv = c.kv_heads * d;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape, double scale, double shift = 0) {
    toy.names.push_back(name);
    toy.values.push_back(at::randn(shape, at::kDouble) * scale + shift);
  };
  const auto linear = [&](const std::string& name, int64_t out, int64_t in) {
    add(name + ".weight", {out, in}, 1.5 / std::sqrt(static_cast<double>(in)));
    add(name + ".bias", {out}, 0.3);
  };
  const auto norm = [&](const std::string& name) {
    add(name + ".weight", {c.width}, 0.3, 1);
    if (!c.llama) add(name + ".bias", {c.width}, 0.3);
  };
  add("embed", {c.vocab, c.width}, 1);
  if (!c.llama) add("positions", {c.tokens + 2, c.width}, 0.5);
  for (int64_t i = 0; i < c.blocks; ++i) {
    const std::string b = std::to_string(i) + ".";
    norm(b + "n1"), norm(b + "n2");
    linear(b + "k", kv, c.width), linear(b + "v", kv, c.width), linear(b + "q", c.width, c.width),
        linear(b + "o", c.width, c.width);
    if (c.llama) linear(b + "gate", c.hidden, c.width);
    linear(b + "up", c.hidden, c.width), linear(b + "down", c.width, c.hidden);
  }
  norm("norm");
  if (!c.tied) add("lm_head", {c.vocab, c.width}, 1);

  toy.program = std::make_unique<Program>(toy.names);
  Program& p = *toy.program;
  const auto make_norm = [&](int x, const std::string& n) {
    return c.llama ? p.rms_norm(x, n, 1e-3) : p.layer_norm(x, n, 1e-3);
  };
  RotaryAngles angles;
  for (int64_t i = 0; i < d / 2; ++i) angles.inverse_frequencies.push_back(std::pow(100.0, -2.0 * i / d));
  int x = p.token_embedding("embed");
  if (!c.llama) x = p.add(x, p.position_embedding("positions", 2));
  for (int64_t i = 0; i < c.blocks; ++i) {
    const std::string b = std::to_string(i) + ".";
    int h = c.pre_norm ? make_norm(x, b + "n1") : x;
    int q = p.linear(h, b + "q"), k = p.linear(h, b + "k"), v = p.linear(h, b + "v");
    if (c.llama) q = p.rotary(q, angles, c.tokens, d), k = p.rotary(k, angles, c.tokens, d);
    x = p.add(x,
              p.linear(p.attention(q, k, v, {c.heads, c.kv_heads, d, 1 / std::sqrt(static_cast<double>(d))}), b + "o"));
    if (!c.pre_norm) x = make_norm(x, b + "n1");
    h = c.pre_norm ? make_norm(x, b + "n2") : x;
    if (c.llama)
      h = p.gated_activation(p.linear(h, b + "gate"), p.linear(h, b + "up"), c.phi);
    else
      h = p.activation(p.linear(h, b + "up"), c.phi);
    x = p.add(x, p.linear(h, b + "down"));
    if (!c.pre_norm) x = make_norm(x, b + "n2");
  }
  if (c.pre_norm) x = make_norm(x, "norm");
  p.head(x, c.tied ? "embed" : "lm_head");
  std::vector<int64_t> sizes;
  for (const Tensor& value : toy.values) sizes.push_back(value.numel());
  p.place(devices, sizes, false);

  const Tensor ids = at::randint(c.vocab, {c.windows, c.tokens}, at::kLong);
  Tensor labels = ids.clone();
  if (c.tokens > 4) labels[0][2] = -100;  // windows of unequal counts
  toy.tokens = make_tokens(ids, labels, devices[0]);
  return toy;
}

}  // namespace hesper::test
