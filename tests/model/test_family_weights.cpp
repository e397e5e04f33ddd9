// Names and places of weights that only some families have: stacks of experts, prefixes, buffers.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <stdexcept>

#include "checkpoint/safetensors.h"
#include "model/weights.h"
#include "text/shared_data.h"

namespace hesper {
namespace {

using nlohmann::json;
using Tensors = std::map<std::string, at::Tensor>;

Weights load(const std::string& folder) {
  const Checkpoint checkpoint = Checkpoint::open(folder);
  return load_weights(checkpoint, parse_config(checkpoint));
}
std::string golden(const std::string& name) { return HESPER_SOURCE_DIR "/tests/golden/" + name; }

// A golden folder once more, with another config and other tensors.
struct Changed {
  TemporaryFolder folder;
  Changed(const std::string& name, const std::function<json(json)>& config,
          const std::function<void(Tensors&)>& change) {
    const Checkpoint checkpoint = Checkpoint::open(golden(name));
    folder.write("config.json", config(checkpoint.config()).dump());
    Tensors tensors;
    for (const std::string& tensor : checkpoint.names()) tensors[tensor] = checkpoint.tensor(tensor);
    change(tensors);
    write_safetensors(folder / "model.safetensors", {tensors.begin(), tensors.end()});
  }
};
const auto same_config = [](json config) { return config; };

void expect_same(const Weights& a, const Weights& b) {
  ASSERT_EQ(a.values.size(), b.values.size());
  for (size_t i = 0; i < a.values.size(); ++i) EXPECT_TRUE(at::equal(a.values[i], b.values[i])) << a.specs[i].name;
}

TEST(FamilyWeights, an_expert_is_a_view_of_its_stack) {
  const Weights weights = load(golden("llama4"));
  const Checkpoint checkpoint = Checkpoint::open(golden("llama4"));
  const std::string root = "model.layers.1.feed_forward.experts.";
  const at::Tensor both = checkpoint.tensor(root + "gate_up_proj"), down = checkpoint.tensor(root + "down_proj");
  const auto of = [&](const std::string& name) {
    return weights.values[size_t(weights.index(root + name + ".weight"))];
  };
  const int64_t hidden = both.size(2) / 2;
  EXPECT_TRUE(at::equal(of("2.gate_proj"), both[2].narrow(1, 0, hidden).t()));
  EXPECT_TRUE(at::equal(of("0.up_proj"), both[0].narrow(1, hidden, hidden).t()));
  EXPECT_TRUE(at::equal(of("1.down_proj"), down[1].t()));
  EXPECT_EQ(of("1.down_proj").sizes(), (std::vector<int64_t>{16, 12}));
}

TEST(FamilyWeights, a_stack_of_another_shape_or_with_a_nan_is_refused_once) {
  const std::string name = "model.layers.0.feed_forward.experts.gate_up_proj";
  const Changed misshapen("llama4", same_config, [&](Tensors& t) { t[name] = t[name].narrow(0, 0, 2).contiguous(); });
  const std::string message = error_of<std::runtime_error>([&] { load(misshapen.folder.path); });
  EXPECT_NE(message.find(name + " has shape (2, 16, 24), expected (3, 16, 24)"), std::string::npos) << message;
  EXPECT_EQ(message.find("more tensors"), std::string::npos) << message;
  const Changed broken("llama4", same_config, [&](Tensors& t) {
    t[name] = t[name].clone();
    t[name][1][0][5] = std::nan("");
  });
  const std::string nan = error_of<std::runtime_error>([&] { load(broken.folder.path); });
  EXPECT_NE(nan.find(name + " of shape (3, 16, 24) is not finite"), std::string::npos) << nan;
  EXPECT_EQ(nan.find("more tensors"), std::string::npos) << nan;
}

TEST(FamilyWeights, the_language_part_of_a_multimodal_checkpoint) {
  for (const auto& [model, type] : {std::pair{"llama4", "llama4"}, {"gemma3", "gemma3"}})
    for (const bool newer : {false, true}) {
      const Changed multimodal(
          model,
          [&](const json& config) {
            return json{{"model_type", type}, {"text_config", config}};
          },
          [&](Tensors& tensors) {
            Tensors renamed;
            for (const auto& [name, value] : tensors) {
              if (!newer) renamed["language_model." + name] = value;
              if (newer) renamed[name.starts_with("model.") ? "model.language_model." + name.substr(6) : name] = value;
            }
            renamed[newer ? "model.vision_tower.x.weight" : "vision_model.x.weight"] = at::ones({3});
            renamed["multi_modal_projector.linear_1.weight"] = at::ones({3});
            tensors = renamed;
          });
      expect_same(load(multimodal.folder.path), load(golden(model)));
    }
  // Of a text model they are no part.
  const Changed text("llama4", same_config, [](Tensors& t) { t["vision_model.x.weight"] = at::ones({3}); });
  EXPECT_NE(error_of<std::runtime_error>([&] { load(text.folder.path); }).find("no part of this model"),
            std::string::npos);
}

TEST(FamilyWeights, gpt2_without_its_prefix_and_with_masks) {
  const Changed bare("gpt2", same_config, [](Tensors& tensors) {
    Tensors renamed;
    for (const auto& [name, value] : tensors) renamed[name.substr(std::string("transformer.").size())] = value;
    renamed["h.0.attn.bias"] = at::ones({1, 1, 12, 12});
    renamed["h.1.attn.masked_bias"] = at::full({}, -1e4);
    tensors = renamed;
  });
  expect_same(load(bare.folder.path), load(golden("gpt2")));
}

TEST(FamilyWeights, gpt_neox_head_by_its_name_on_the_hub) {
  const Changed hub("neox", same_config, [](Tensors& tensors) {
    tensors["embed_out.weight"] = tensors.at("lm_head.weight");
    tensors.erase("lm_head.weight");
    tensors["gpt_neox.layers.0.attention.bias"] = at::ones({1, 1, 8, 8});
    tensors["gpt_neox.layers.0.attention.masked_bias"] = at::full({}, -1e9);
  });
  expect_same(load(hub.folder.path), load(golden("neox")));
}

}  // namespace
}  // namespace hesper
