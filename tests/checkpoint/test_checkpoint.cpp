#include "checkpoint/checkpoint.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <stdexcept>

#include "checkpoint/safetensors.h"
#include "files/digest.h"
#include "files/read_file.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

using nlohmann::json;

std::string sha256_of(const std::filesystem::path& file) {
  const std::string bytes = read_file(file);
  return sha256_hex(std::as_bytes(std::span(bytes)));
}

std::string refusal(const TemporaryFolder& folder) {
  const std::string path = folder.path;
  std::string message = error_of<std::runtime_error>([&] { Checkpoint::open(path); });
  if (const auto at = message.find(path); at != std::string::npos) message.replace(at, path.size(), "F");
  return message;
}

// Two shards: one.safetensors {a, b}, two.safetensors {c}; `index` is its weight_map.
void write_shards(const TemporaryFolder& folder, const json& index) {
  folder.write("config.json", R"({"model_type": "opt"})");
  write_safetensors(folder / "one.safetensors", {{"a", at::ones({2})}, {"b", at::zeros({3}, at::kHalf)}});
  write_safetensors(folder / "two.safetensors", {{"c", at::arange(4)}});
  folder.write("model.safetensors.index.json", json{{"metadata", {{"total_size", 1}}}, {"weight_map", index}}.dump());
}

const json good_index = {{"a", "one.safetensors"}, {"b", "one.safetensors"}, {"c", "two.safetensors"}};

TEST(Checkpoint, opens_one_file) {
  const TemporaryFolder folder;
  folder.write("config.json", R"({"model_type": "llama", "x": 1})");
  write_safetensors(folder / "model.safetensors",
                    {{"model.norm.weight", at::ones({2})}, {"lm_head.weight", at::ones(1)}});
  const Checkpoint checkpoint = Checkpoint::open(folder.path);
  EXPECT_EQ(checkpoint.config().at("x"), 1);
  EXPECT_EQ(checkpoint.names(), (std::vector<std::string>{"lm_head.weight", "model.norm.weight"}));
  EXPECT_TRUE(checkpoint.has("model.norm.weight"));
  EXPECT_EQ(checkpoint.info("model.norm.weight").shape, std::vector<int64_t>{2});
  EXPECT_EQ(checkpoint.file("lm_head.weight"), (folder / "model.safetensors").string());
  EXPECT_EQ(checkpoint.sha256(), sha256_of(folder / "model.safetensors"));
  EXPECT_THROW(checkpoint.tensor("x"), std::runtime_error);
}

TEST(Checkpoint, opens_shards) {
  const TemporaryFolder folder;
  write_shards(folder, good_index);
  const Checkpoint checkpoint = Checkpoint::open(folder.path);
  EXPECT_EQ(checkpoint.names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_TRUE(at::equal(checkpoint.tensor("a"), at::ones({2})));
  EXPECT_EQ(checkpoint.tensor("b").scalar_type(), at::kHalf);
  EXPECT_TRUE(at::equal(checkpoint.tensor("c"), at::arange(4)));
  // What the documentation promises: the digest of sha256sum's own lines.
  const std::string listing = folder / "listing";
  const std::string command = "cd '" + folder.path.string() + "' && sha256sum *.safetensors > listing";
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(checkpoint.sha256(), sha256_of(listing));
}

// The hash is made beside what the process does; a checkpoint that nobody needs any more does not wait for it.
TEST(Checkpoint, hashes_on_a_thread_of_its_own) {
  const TemporaryFolder folder;
  const std::filesystem::path file = folder / "model.safetensors";
  folder.write("config.json", "{}");
  const int64_t size = int64_t{256} << 20;
  const std::string header = fmt::format(R"({{"w":{{"dtype":"U8","shape":[{}],"data_offsets":[0,{}]}}}})", size, size);
  const uint64_t length = header.size();
  folder.write("model.safetensors", std::string(reinterpret_cast<const char*>(&length), 8) + header);
  std::filesystem::resize_file(file, 8 + header.size() + static_cast<uintmax_t>(size));  // zeros, no room on the disk
  const auto seconds = [](const auto& work) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  const Checkpoint checkpoint = Checkpoint::open(folder.path.string());
  std::string hash;
  const double whole = seconds([&] { hash = checkpoint.sha256(); });
  EXPECT_EQ(hash, sha256_of(file));
  EXPECT_LT(seconds([&] { EXPECT_EQ(Checkpoint(checkpoint).sha256(), hash); }), whole / 2);  // not read again
  EXPECT_LT(seconds([&] { Checkpoint::open(folder.path.string()).begin_sha256(); }), whole / 2);
}

TEST(Checkpoint, names_of_the_bare_model_gain_their_prefix) {
  EXPECT_EQ(canonical_tensor_name("decoder.layers.0.fc1.weight"), "model.decoder.layers.0.fc1.weight");
  EXPECT_EQ(canonical_tensor_name("layers.0.mlp.up_proj.weight"), "model.layers.0.mlp.up_proj.weight");
  EXPECT_EQ(canonical_tensor_name("embed_tokens.weight"), "model.embed_tokens.weight");
  EXPECT_EQ(canonical_tensor_name("norm.weight"), "model.norm.weight");
  EXPECT_EQ(canonical_tensor_name("model.norm.weight"), "model.norm.weight");
  EXPECT_EQ(canonical_tensor_name("lm_head.weight"), "lm_head.weight");

  const TemporaryFolder folder;
  folder.write("config.json", "{}");
  write_safetensors(folder / "model.safetensors", {{"norm.weight", at::ones({2})}});
  EXPECT_EQ(Checkpoint::open(folder.path).tensor("model.norm.weight").numel(), 2);
  write_safetensors(folder / "model.safetensors",
                    {{"norm.weight", at::ones({2})}, {"model.norm.weight", at::ones({2})}});
  EXPECT_EQ(refusal(folder),
            "F/model.safetensors: tensors \"model.norm.weight\" and \"norm.weight\" are both \"model.norm.weight\"");
}

TEST(Checkpoint, refuses_shards_outside_the_folder) {
  for (const char* shard : {"../one.safetensors", "/etc/passwd", "sub/one.safetensors", "..", ".", "", ".hidden",
                            "..\\one.safetensors", "one.safetensors/", "./one.safetensors"}) {
    const TemporaryFolder folder;
    json index = good_index;
    index["a"] = shard;
    write_shards(folder, index);
    EXPECT_EQ(refusal(folder), "F/model.safetensors.index.json: tensor \"a\": " + printable(json(shard).dump()) +
                                   " is not the name of a file in the folder");
  }
  const TemporaryFolder folder;
  json index = good_index;
  index["a"] = std::string("one.safetensors\0x", 17);
  write_shards(folder, index);
  EXPECT_NE(refusal(folder).find("is not the name of a file"), std::string::npos);
  index["a"] = 3;
  write_shards(folder, index);
  EXPECT_NE(refusal(folder).find("is not the name of a file"), std::string::npos);
}

TEST(Checkpoint, refuses_an_index_that_does_not_match_its_shards) {
  const TemporaryFolder folder;
  json index = good_index;
  index["d"] = "two.safetensors";
  write_shards(folder, index);
  EXPECT_EQ(refusal(folder), "F/model.safetensors.index.json: tensor \"d\" is not in two.safetensors");
  index = good_index;
  index["a"] = "two.safetensors";
  write_shards(folder, index);
  EXPECT_EQ(refusal(folder),
            "F/model.safetensors.index.json: tensor \"a\" is in one.safetensors, where the index does not place it");
  index = good_index;
  index.erase("b");
  write_shards(folder, index);
  EXPECT_EQ(refusal(folder),
            "F/model.safetensors.index.json: tensor \"b\" is in one.safetensors, where the index does not place it");
  index = good_index;
  index["c"] = "three.safetensors";
  write_shards(folder, index);
  EXPECT_EQ(refusal(folder), "F/three.safetensors: cannot open: No such file or directory");
  write_shards(folder, json::array());
  EXPECT_EQ(refusal(folder), "F/model.safetensors.index.json: \"weight_map\" is missing, empty or not an object");
}

TEST(Checkpoint, says_what_is_missing) {
  EXPECT_EQ(error_of<std::runtime_error>([] { Checkpoint::open("/no/such/model"); }),
            "/no/such/model: no such model folder");
  const TemporaryFolder folder;
  EXPECT_EQ(refusal(folder), "F/config.json: cannot open: No such file or directory");
  folder.write("config.json", "{} x");
  EXPECT_EQ(refusal(folder), "F/config.json: not JSON");
  folder.write("config.json", "[]");
  EXPECT_EQ(refusal(folder), "F/config.json: not a JSON object");
  folder.write("config.json", "{}");
  folder.write("tf_model.h5", "");
  EXPECT_EQ(refusal(folder),
            "F: no weights: looked for model.safetensors and pytorch_model.bin, for .index.json of both, and for one "
            ".gguf");
}

}  // namespace
}  // namespace hesper
