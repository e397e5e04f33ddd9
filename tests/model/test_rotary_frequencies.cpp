#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <vector>

#include "model/config.h"

namespace hesper {
namespace {

using nlohmann::json;

// Expected values: transformers 5.23.0 in double precision, made by
//   import torch; torch.float = torch.float64     # the functions ask for torch.float
//   from transformers import LlamaConfig
//   from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS as R
//   from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding as E
//   def c(**k): return LlamaConfig(hidden_size=64, num_attention_heads=4, max_position_embeddings=2048, **k)
//   E.compute_default_rope_parameters(c(rope_theta=5e5))
//   R["linear"](c(rope_scaling={"type": "linear", "factor": 4.0}))
//   R["dynamic"](c(rope_scaling={"type": "dynamic", "factor": 2.0}), seq_len=2048)     # and 5000
//   R["llama3"](LlamaConfig(hidden_size=2048, num_attention_heads=32, head_dim=32, max_position_embeddings=131072,
//       rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0, "low_freq_factor": 1.0,
//                        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}))
ModelConfig small(const json& changes) {
  json config = {{"model_type", "llama"},   {"vocab_size", 10},       {"hidden_size", 64},
                 {"intermediate_size", 10}, {"num_hidden_layers", 1}, {"num_attention_heads", 4}};
  config.update(changes);
  return parse_config(config, "config.json");
}

void expect_frequencies(const ModelConfig& config, int64_t seqlen, const std::vector<double>& expected) {
  const std::vector<double> actual = rotary_angles(config, seqlen).inverse_frequencies;
  ASSERT_EQ(actual.size(), expected.size());
  // Both sides take a power and a few products in fp64: a few ulps times the exponent's log(theta) = 13.
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(actual[i] / expected[i], 1, 1e-14) << i;
}

TEST(RotaryFrequencies, standard) {
  expect_frequencies(small({{"rope_theta", 5e5}}), 7,
                     {1.0, 0.19392274474868576, 0.03760603093086393, 0.0072926647372171085, 0.001414213562373095,
                      0.0002742481756762073, 5.318295896944989e-05, 1.031338537721246e-05});
}

TEST(RotaryFrequencies, linear) {
  expect_frequencies(small({{"rope_scaling", {{"type", "linear"}, {"factor", 4.0}}}}), 7,
                     {0.25, 0.07905694150420949, 0.025, 0.007905694150420948, 0.0025, 0.0007905694150420947, 0.00025,
                      7.905694150420948e-05});
}

TEST(RotaryFrequencies, dynamic_depends_on_tokens_beyond_the_trained_length) {
  const ModelConfig config = small({{"rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}}});
  const std::vector<double> trained = {1.0,  0.31622776601683794,  0.1,   0.03162277660168379,
                                       0.01, 0.003162277660168379, 0.001, 0.00031622776601683794};
  expect_frequencies(config, 2048, trained);
  expect_frequencies(config, 1, trained);
  expect_frequencies(config, 5000,
                     {1.0, 0.26051709445418625, 0.06786915650285139, 0.01768107545517928, 0.0046062224044085345,
                      0.001199999677206287, 0.0003126204292517432, 8.144296589568463e-05});
}

TEST(RotaryFrequencies, llama3) {
  const ModelConfig config = small({{"hidden_size", 2048},
                                    {"num_attention_heads", 32},
                                    {"head_dim", 32},
                                    {"max_position_embeddings", 131072},
                                    {"rope_parameters",
                                     {{"rope_type", "llama3"},
                                      {"rope_theta", 5e5},
                                      {"factor", 32.0},
                                      {"low_freq_factor", 1.0},
                                      {"high_freq_factor", 4.0},
                                      {"original_max_position_embeddings", 8192}}}});
  expect_frequencies(config, 16,
                     {1.0, 0.44036660267178046, 0.19392274474868576, 0.08539710028576561, 0.03760603093086393,
                      0.016560440080994446, 0.0072926647372171085, 0.0032114459947525913, 0.00042955679655936815,
                      1.9461638184831125e-05, 8.570255489881478e-06, 3.7740542941082826e-06, 1.661967467795309e-06,
                      7.318749675440419e-07, 3.2229329303788936e-07, 1.4192720251899592e-07});
}

//   c = LlamaConfig(hidden_size=64, num_attention_heads=4, max_position_embeddings=131072,
//   rope_parameters={"rope_type":
//       "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32768})    # as Qwen 2.5 says
//   R["yarn"](c)                     # and with beta_fast=8, beta_slow=0.25, truncate=False, mscale=0.707,
//   mscale_all_dim=1
TEST(RotaryFrequencies, yarn) {
  json rope = {{"type", "yarn"}, {"rope_theta", 1e6}, {"factor", 4.0}, {"original_max_position_embeddings", 32768}};
  const auto config = [&] { return small({{"max_position_embeddings", 131072}, {"rope_scaling", rope}}); };
  expect_frequencies(config(), 16,
                     {1.0, 0.17782794100389226, 0.03162277660168379, 0.004217559938927618, 0.0005,
                      4.445698525097307e-05, 7.905694150420949e-06, 1.4058533129758728e-06});
  EXPECT_NEAR(rotary_angles(config(), 16).factor, 1.138629436111989, 1e-15);
  rope.update({{"beta_fast", 8}, {"beta_slow", 0.25}, {"truncate", false}, {"mscale", 0.707}, {"mscale_all_dim", 1.0}});
  expect_frequencies(config(), 16,
                     {1.0, 0.17782794100389226, 0.03162277660168379, 0.005623413251903491, 0.0009074079378798393,
                      9.490517650011938e-05, 7.905694150420949e-06, 1.4058533129758728e-06});
  EXPECT_NEAR(rotary_angles(config(), 16).factor, 0.964326914892074, 1e-15);
  rope["attention_factor"] = 1.25;
  EXPECT_EQ(rotary_angles(config(), 16).factor, 1.25);
}

// Divisors of their own for longer windows; the factor by the lengths or, where it is said, by "factor".
TEST(RotaryFrequencies, longrope) {
  const std::vector<double> kept(8, 1), longer = {1, 1, 1, 1, 2, 2, 4, 4};
  json rope = {{"rope_type", "longrope"}, {"short_factor", kept}, {"long_factor", longer}};
  const auto config = [&] {
    return small(
        {{"max_position_embeddings", 4096}, {"original_max_position_embeddings", 256}, {"rope_scaling", rope}});
  };
  const std::vector<double> plain = rotary_angles(small(json::object()), 1).inverse_frequencies;
  EXPECT_EQ(rotary_angles(config(), 256).inverse_frequencies, plain);
  const std::vector<double> far = rotary_angles(config(), 257).inverse_frequencies;
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(far[i], plain[i] / longer[i]) << i;
  EXPECT_DOUBLE_EQ(rotary_angles(config(), 9).factor, std::sqrt(1 + 0.5));  // log 16 / log 256
  rope["factor"] = 2;
  EXPECT_DOUBLE_EQ(rotary_angles(config(), 9).factor, std::sqrt(1 + 0.125));
}

TEST(RotaryFrequencies, refuses_what_has_none) {
  EXPECT_THROW(rotary_angles(small(json::object()), 0), std::invalid_argument);
  EXPECT_THROW(rotary_angles(ModelConfig{}, 8), std::invalid_argument);
}

}  // namespace
}  // namespace hesper
