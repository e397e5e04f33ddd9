#include "report/names.h"

#include <gtest/gtest.h>

#include "temporary_folder.h"

namespace hesper {
namespace {

NameParts reference(std::vector<std::string> layers, std::vector<int64_t> blocks) {
  NameParts parts;
  parts.layers = std::move(layers);
  parts.blocks = std::move(blocks);
  parts.t = 5;
  parts.n = 5 * static_cast<int64_t>(parts.layers.size() * parts.blocks.size());
  parts.b = 30;
  parts.selection_sha256 = "0123456789abcdef";
  return parts;
}

TEST(ResultName, AsTheReferenceNamesThem) {
  EXPECT_EQ(result_name(reference({"self_attn.q_proj"}, {0})), "hessian_self_attn.q_proj_block0_t5_b30_seed0");
  EXPECT_EQ(result_name(reference({"fc1"}, {11})), "hessian_fc1_block11_t5_b30_seed0");
  EXPECT_EQ(result_name(reference({"self_attn.q_proj"}, {0, 1, 2})), "hessian_self_attn.q_proj_3_blocks_t5_b30_seed0");
  NameParts several = reference({"self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj"}, {0, 1, 2});
  several.first_layers = true;
  several.seed = 7;
  EXPECT_EQ(result_name(several), "hessian_3_layers_3_blocks_t5_b30_seed7");
  NameParts one_block = reference({"self_attn.k_proj", "self_attn.v_proj"}, {0});
  one_block.first_layers = true;
  EXPECT_EQ(result_name(one_block), "hessian_2_layers_1_blocks_t5_b30_seed0");
}

TEST(ResultName, SuffixesOfOtherOptions) {
  NameParts parts = reference({"self_attn.q_proj"}, {0});
  parts.seqlen = 256;
  EXPECT_EQ(result_name(parts), "hessian_self_attn.q_proj_block0_t5_b30_seed0_T256");
  parts.perplexity = true;
  parts.method = "gauss-newton";
  EXPECT_EQ(result_name(parts), "hessian_self_attn.q_proj_block0_t5_b30_seed0_T256_perplexity_gauss-newton");
  parts.first_weights = false;
  parts.n = 64;
  EXPECT_EQ(result_name(parts),
            "hessian_self_attn.q_proj_block0_n64_b30_seed0_T256_perplexity_gauss-newton_sel01234567");
}

TEST(ResultName, SelectionsTheReferenceCannotSay) {
  // Blocks that do not begin at 0, layers that are not the first ones, a parameter outside the blocks.
  EXPECT_EQ(result_name(reference({"fc1"}, {3, 4})), "hessian_fc1_2_blocks_t5_b30_seed0_sel01234567");
  EXPECT_EQ(result_name(reference({"fc1", "fc2"}, {0})), "hessian_2_layers_block0_t5_b30_seed0_sel01234567");
  NameParts embedding = reference({"model.embed_tokens.weight"}, {});
  embedding.first_weights = false;
  embedding.n = 12;
  EXPECT_EQ(result_name(embedding), "hessian_model.embed_tokens.weight_n12_b30_seed0_sel01234567");
  NameParts odd = reference({"../a b"}, {0});
  EXPECT_EQ(result_name(odd), "hessian_.._a_b_block0_t5_b30_seed0");
}

TEST(ResultName, RefusesWhatHasNoName) {
  EXPECT_THROW(result_name(NameParts{}), std::invalid_argument);
  NameParts parts = reference({"fc1"}, {3, 4});
  parts.selection_sha256 = "0123";
  EXPECT_NE(error_of<std::invalid_argument>([&] { result_name(parts); }).find("'0123'"), std::string::npos);
}

}  // namespace
}  // namespace hesper
