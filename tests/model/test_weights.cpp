#include "model/weights.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <stdexcept>

#include "checkpoint/safetensors.h"
#include "text/shared_data.h"

namespace hesper {
namespace {

using nlohmann::json;
using Tensors = std::map<std::string, at::Tensor>;

const json tiny = {{"model_type", "llama"},   {"vocab_size", 10},       {"hidden_size", 8},
                   {"intermediate_size", 12}, {"num_hidden_layers", 2}, {"num_attention_heads", 2}};

// A folder with the tiny model, its tensors changed by `change` before they are written.
class Folder {
 public:
  explicit Folder(const std::function<void(Tensors&)>& change, json config = tiny, at::ScalarType dtype = at::kFloat) {
    folder_.write("config.json", config.dump());
    Tensors tensors;
    int64_t seed = 0;
    for (const ParameterSpec& spec : parameter_table(parse_config(config, "config.json"))) {
      int64_t size = 1;
      for (const int64_t extent : spec.shape) size *= extent;
      tensors[spec.name] = at::arange(seed, seed + size, at::kDouble).div(64).view(spec.shape).to(dtype);
      ++seed;
    }
    change(tensors);
    write_safetensors(folder_ / "model.safetensors", {tensors.begin(), tensors.end()});
  }

  Weights load(at::ScalarType dtype = at::kFloat) const {
    const Checkpoint checkpoint = Checkpoint::open(folder_.path);
    return load_weights(checkpoint, parse_config(checkpoint), dtype);
  }
  // The error's line, the folder written as F.
  std::string refusal(at::ScalarType dtype = at::kFloat) const {
    const std::string path = folder_.path;
    std::string message = error_of<std::runtime_error>([&] { load(dtype); });
    if (const auto at = message.find(path); at != std::string::npos) message.replace(at, path.size(), "F");
    return message;
  }

 private:
  TemporaryFolder folder_;
};

const auto unchanged = [](Tensors&) {};
const std::string q_name = "model.layers.1.self_attn.q_proj.weight";

TEST(Weights, load_in_the_order_of_the_table) {
  const Folder folder(unchanged);
  const Weights weights = folder.load();
  ASSERT_EQ(weights.values.size(), weights.specs.size());
  for (size_t i = 0; i < weights.specs.size(); ++i) {
    EXPECT_EQ(weights.values[i].sizes().vec(), weights.specs[i].shape);
    EXPECT_EQ(weights.index(weights.specs[i].name), static_cast<int>(i));
  }
  EXPECT_EQ(weights.index("x"), -1);
}

TEST(Weights, are_mapped_unless_converted) {
  const Checkpoint checkpoint = Checkpoint::open(HESPER_SOURCE_DIR "/tests/golden/llama-gqa");
  const ModelConfig config = parse_config(checkpoint);
  const at::Tensor stored = checkpoint.tensor("model.norm.weight");
  const Weights same = load_weights(checkpoint, config, stored.scalar_type());
  EXPECT_EQ(same.values[static_cast<size_t>(same.index("model.norm.weight"))].const_data_ptr(),
            stored.const_data_ptr());
  const Weights half = load_weights(checkpoint, config, at::kHalf);
  const at::Tensor& converted = half.values[static_cast<size_t>(half.index("model.norm.weight"))];
  EXPECT_TRUE(at::equal(converted, stored.to(at::kHalf)));
}

TEST(Weights, convert_from_every_floating_type) {
  for (const auto from : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16}) {
    const Folder folder(unchanged, tiny, from);
    for (const auto to : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16}) {
      const Weights weights = folder.load(to);
      const at::Tensor expected = at::arange(0, 80, at::kDouble).div(64).to(from).to(to).view({10, 8});
      EXPECT_EQ(weights.values[0].scalar_type(), to);
      EXPECT_TRUE(at::equal(weights.values[0], expected)) << c10::toString(from) << " to " << c10::toString(to);
    }
    EXPECT_THROW(folder.load(at::kInt), std::invalid_argument);
  }
}

TEST(Weights, name_missing_extra_and_misshapen_tensors) {
  EXPECT_EQ(Folder([](Tensors& t) { t.erase(q_name); }).refusal(),
            "F: tensor " + q_name + " is missing, expected shape (8, 8)");
  EXPECT_EQ(Folder([](Tensors& t) {
              t["model.extra"] = at::ones({2, 3});
            }).refusal(),
            "F/model.safetensors: tensor \"model.extra\" of shape (2, 3) is no part of this model");
  EXPECT_EQ(Folder([](Tensors& t) {
              t[q_name] = at::ones({8, 9});
            }).refusal(),
            "F/model.safetensors: tensor " + q_name + " has shape (8, 9), expected (8, 8)");
  EXPECT_EQ(Folder([](Tensors& t) { t[q_name] = t[q_name].to(at::kChar); }).refusal(),
            "F/model.safetensors: tensor " + q_name + " is stored as Char, expected a floating type (shape (8, 8))");
  EXPECT_EQ(Folder([](Tensors& t) {
              t.erase(q_name);
              t.erase("model.norm.weight");
              t["model.extra"] = at::ones({2});
            }).refusal(),
            "F: tensor " + q_name + " is missing, expected shape (8, 8) (and 2 more tensors)");
  // a bias that the config does not announce is not dropped in silence
  EXPECT_EQ(
      Folder([](Tensors& t) { t["model.layers.0.self_attn.q_proj.bias"] = at::ones({8}); }).refusal(),
      "F/model.safetensors: tensor \"model.layers.0.self_attn.q_proj.bias\" of shape (8) is no part of this model");
}

TEST(Weights, ignore_old_buffers) {
  EXPECT_EQ(Folder([](Tensors& t) {
              t["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::ones({2});
              t["model.rotary_emb.inv_freq"] = at::ones({2});
              t["model.decoder.version"] = at::ones({1});
            }).refusal(),
            "");
}

TEST(Weights, are_finite_in_every_type_at_every_place) {
  const double inf = std::numeric_limits<double>::infinity();
  for (const auto dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16}) {
    for (const double value : {std::nan(""), inf, -inf}) {
      for (const int64_t place : {0, 41, 63}) {
        const std::string message =
            Folder([&](Tensors& t) { t[q_name].view(-1)[place] = value; }, tiny, dtype).refusal(dtype);
        EXPECT_EQ(message, "F/model.safetensors: tensor " + q_name + " of shape (8, 8) is not finite in " +
                               std::string(c10::toString(dtype)) + ": " +
                               (std::isnan(value) ? "nan"
                                : value > 0       ? "inf"
                                                  : "-inf") +
                               " at flat index " + std::to_string(place));
      }
    }
    // the largest finite values are fine
    const double largest = dtype == at::kDouble ? 1.7e308 : dtype == at::kHalf ? 65504 : 3.3e38;
    EXPECT_EQ(Folder([&](Tensors& t) { t[q_name].fill_(-largest); }, tiny, dtype).refusal(dtype), "");
  }
  EXPECT_EQ(Folder([](Tensors& t) { t[q_name][0][1] = 1e300; }, tiny, at::kDouble).refusal(at::kFloat),
            "F/model.safetensors: tensor " + q_name + " of shape (8, 8) is not finite in Float: inf at flat index 1");
}

TEST(Weights, find_what_is_not_finite_beyond_the_first_run) {
  const json wide = [] {
    json config = tiny;
    config["vocab_size"] = 3000;
    return config;
  }();
  for (const int64_t place : {4095, 4096, 23999}) {
    const Folder folder([&](Tensors& t) { t["model.embed_tokens.weight"].view(-1)[place] = std::nan(""); }, wide);
    EXPECT_NE(folder.refusal().find("flat index " + std::to_string(place)), std::string::npos) << folder.refusal();
  }
}

TEST(Weights, a_tied_head_may_be_stored_if_it_is_the_embedding) {
  json tied = tiny;
  tied["tie_word_embeddings"] = true;
  const auto head = [&](const at::Tensor& value) {
    return Folder([&](Tensors& t) { t["lm_head.weight"] = value.defined() ? value : t["model.embed_tokens.weight"]; },
                  tied);
  };
  const Folder same = head({});
  EXPECT_EQ(same.refusal(), "");
  EXPECT_EQ(same.load().index("lm_head.weight"), -1);
  EXPECT_EQ(head(at::arange(80, at::kDouble).div(64).view({10, 8})).refusal(), "");
  EXPECT_EQ(
      head(at::ones({10, 8})).refusal(),
      "F/model.safetensors: tensor lm_head.weight differs from model.embed_tokens.weight, but tie_word_embeddings is "
      "true (both (10, 8))");
  EXPECT_EQ(head(at::ones({10, 4})).refusal(),
            "F/model.safetensors: tensor lm_head.weight has shape (10, 4), the embedding it is tied to (10, 8)");
}

TEST(Weights, of_real_models) {
  for (const char* name : {"opt-tiny", "stories260K", "babyllama105"}) {
    HESPER_NEEDS(std::string("models/") + name);
    const Checkpoint checkpoint = Checkpoint::open(shared_data(std::string("models/") + name));
    const ModelConfig config = parse_config(checkpoint);
    const Weights weights = load_weights(checkpoint, config, at::kFloat);
    EXPECT_EQ(weights.specs.size(), parameter_table(config).size()) << name;
  }
}

TEST(Weights, digest_of_a_real_model) {
  HESPER_NEEDS("models/stories260K");
  EXPECT_EQ(Checkpoint::open(shared_data("models/stories260K")).sha256(),
            "407a7c581bdd66972383ce9ad24857713fb98786d06ea564a2fe9b34ebe77dfd");
}

TEST(Weights, of_golden_models) {
  int models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(HESPER_SOURCE_DIR "/tests/golden")) {
    if (!std::filesystem::exists(entry.path() / "config.json")) continue;
    const Checkpoint checkpoint = Checkpoint::open(entry.path());
    load_weights(checkpoint, parse_config(checkpoint), at::kDouble);
    ++models;
  }
  EXPECT_GE(models, 5);
}

}  // namespace
}  // namespace hesper
