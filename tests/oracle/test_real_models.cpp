// Real models from their files: text -> ids -> windows -> loss and a block of the Hessian, against transformers in
// float64 (tests/golden/real_models.py, real_models.json). A test skips where its model is not on this machine.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "checkpoint/checkpoint.h"
#include "model/build_program.h"
#include "model/weights.h"
#include "oracle/golden.h"
#include "tangent/tangent_pass.h"
#include "text/corpus.h"
#include "text/shared_data.h"
#include "text/tokenizer.h"
#include "text/windows.h"

namespace hesper::oracle {
namespace {

// 13 digits are stored; sums over 512 tokens and 49,152 words in another order move the 14th.
constexpr double kTolerance = 1e-11;
// Of weights below all blocks: the residual stream of SmolLM2 holds entries of 25,000, whose roundings they feel.
constexpr double kCornerTolerance = 1e-9;

nlohmann::json recorded(const std::string& name) {
  return nlohmann::json::parse(std::ifstream(std::string(HESPER_SOURCE_DIR) + "/tests/golden/real_models.json"))
      .at("cases")
      .at(name);
}

std::filesystem::path smollm2_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::filesystem::path base =
      cache ? std::filesystem::path(cache) : std::filesystem::path(home ? home : "") / ".cache";
  return base / "hesper" / "smollm2-135m";
}

at::Tensor matrix(const nlohmann::json& rows) {
  std::vector<double> values;
  for (const auto& row : rows) {
    for (const auto& x : row) values.push_back(x);
  }
  return at::tensor(values, at::kDouble).view({int64_t(rows.size()), -1});
}

at::Tensor windows_of(const Tokenizer& tokenizer, const std::string& text, const nlohmann::json& expected) {
  WindowOptions options;
  options.seqlen = expected.at("seqlen").get<int64_t>();
  options.b = expected.at("windows").get<int64_t>();
  options.bos = parse_bos_placement(expected.at("bos"));
  std::vector<std::string> notes;
  return cut_windows(tokenizer.encode(text), tokenizer.bos(), options, notes).ids;
}

struct Model {
  explicit Model(const std::filesystem::path& folder) {
    const Checkpoint checkpoint = Checkpoint::open(folder);
    weights = load_weights(checkpoint, parse_config(checkpoint), at::kDouble);
  }
  hesper::Weights weights;
  Parameters parameters() const { return Parameters(weights.values, at::kDouble, at::kCPU); }
};

// Loss of the first `count` windows, one at a time (logits of one window are the largest tensor); ids of all.
void expect_losses(const Model& model, const at::Tensor& ids, const nlohmann::json& expected, int64_t count) {
  ASSERT_EQ(ids_sha256(ids), expected.at("ids_sha256").get<std::string>()) << "the ids differ, not the model";
  const auto program = build_program(model.weights.config, ids.size(1));
  const Parameters parameters = model.parameters();
  for (int64_t s = 0; s < count; ++s) {
    const at::Tensor window = ids.narrow(0, s, 1);
    const double loss =
        run_forward(program, parameters, make_tokens(window, window, at::kCPU), at::kDouble).item<double>();
    const double reference = expected.at("window_losses").at(size_t(s));
    EXPECT_NEAR(loss, reference, kTolerance * reference) << "window " << s;
  }
}

// 9 weights of the first, middle and last block and the final norm, all cross terms.
void expect_block(const Model& model, const at::Tensor& ids, const nlohmann::json& expected) {
  const at::Tensor window = ids.narrow(0, 0, 1).narrow(1, 0, expected.at("tokens").get<int64_t>()).contiguous();
  const auto program = build_program(model.weights.config, window.size(1));
  const Parameters parameters = model.parameters();
  Selection selection;
  for (const auto& entry : expected.at("entries")) {
    const int p = program.parameter(entry.at("tensor"));
    ASSERT_GE(p, 0);
    selection.add(p, model.weights.values[p].sizes(),
                  at::tensor(entry.at("indices").get<std::vector<int64_t>>(), at::kLong));
  }
  const Tape tape = run_primal(program, parameters, selection, make_tokens(window, window, at::kCPU), at::kDouble);
  const Directions units = Directions::units(selection, 0, selection.size(), at::kDouble);
  const TangentPass pass(program, parameters, selection, tape);
  const at::Tensor H = matrix(expected.at("hessian")), G = matrix(expected.at("gauss_newton"));
  EXPECT_LE(relative_error(tape.gradient, matrix(nlohmann::json::array({expected.at("gradient")}))), kTolerance);
  const at::Tensor product = pass.product(units, 0, Curvature::hessian);
  EXPECT_LE(relative_error(product, H), kTolerance);
  EXPECT_LE(relative_error(pass.product(units, 0, Curvature::gauss_newton), G), kTolerance);
  // The first four entries, q_proj of block 0, are small beside the norm's: held by their own norm as well.
  const auto corner = [](const at::Tensor& m) { return m.slice(0, 0, 4).slice(1, 0, 4); };
  EXPECT_LE(relative_error(corner(product), corner(H)), kCornerTolerance);
  const auto block = pass.second_order(units, 0);
  EXPECT_LE(relative_error(corner(block.gauss_newton + block.residual), corner(H)), kCornerTolerance);
  EXPECT_LE(relative_error(block.gauss_newton + block.residual, H), kTolerance);
  EXPECT_LE(relative_error(block.gauss_newton, G), kTolerance);
}

void expect_model(const Model& model, const at::Tensor& ids, const nlohmann::json& expected) {
  expect_losses(model, ids, expected, ids.size(0));
  expect_block(model, ids, expected.at("block"));
}

std::string wikitext_test() {
  const TemporaryFolder folder;
  unpack("text/wiki.test.raw.gz", folder / "wiki.test.raw");
  return wikitext2_document(folder / "wiki.test.raw");
}

TEST(RealModels, OptTinyOnWikiText2) {
  HESPER_NEEDS("models/opt-tiny/model.safetensors");
  HESPER_NEEDS("text/wiki.test.raw.gz");
  const auto folder = shared_data("models/opt-tiny");
  const auto expected = recorded("opt-tiny");
  EXPECT_NEAR(expected.at("perplexity"), 183.44497, 5e-6);  // as published with the model
  expect_model(Model(folder), windows_of(*load_tokenizer(folder), wikitext_test(), expected), expected);
}

TEST(RealModels, BabyLlamaOnTinyStories) {
  HESPER_NEEDS("models/babyllama105/model.safetensors");
  HESPER_NEEDS("text/tinystories_sample.txt");
  const auto folder = shared_data("models/babyllama105");
  const auto expected = recorded("babyllama105");
  const std::string text = text_document(shared_data("text/tinystories_sample.txt"));
  expect_model(Model(folder), windows_of(*load_tokenizer(folder), text, expected), expected);
}

// The ids are BOS and 256 words, each the likeliest after those before it.
TEST(RealModels, Stories260KReproducesItsGreedyText) {
  HESPER_NEEDS("models/stories260K/model.safetensors");
  HESPER_NEEDS("vectors/stories260K.greedy.txt");
  const Model model(shared_data("models/stories260K"));
  std::istringstream numbers(read_file(shared_data("vectors/stories260K.greedy.txt")));
  const std::vector<int64_t> greedy{std::istream_iterator<int64_t>(numbers), {}};
  ASSERT_EQ(greedy.size(), 257u);
  const at::Tensor ids = at::tensor(greedy, at::kLong).unsqueeze(0);
  expect_model(model, ids, recorded("stories260K"));

  const auto program = build_program(model.weights.config, ids.size(1));
  const Parameters parameters = model.parameters();
  const Selection nothing;
  const Tokens tokens = make_tokens(ids, ids, at::kCPU);
  const Primal primal{tokens, parameters, nothing, at::kDouble, false};
  Tensors values(size_t(program.values()));
  for (const auto& op : program.ops()) {
    Tensors x;
    for (int input : op->inputs) x.push_back(values[input]);
    values[op->output] = op->plain(primal, x);
  }
  const at::Tensor z = program.cross_entropy().logits(parameters, values[program.cross_entropy().input]);
  EXPECT_TRUE(at::equal(z.argmax(-1).slice(0, 0, -1), ids[0].slice(0, 1)));
}

TEST(RealModels, SmolLM2OnWikiText2) {
  HESPER_NEEDS("text/wiki.test.raw.gz");
  const auto folder = smollm2_folder();
  if (!std::filesystem::exists(folder))
    GTEST_SKIP() << "not there: " << folder << " (scripts/smollm2_folder.py makes it)";
  const auto expected = recorded("smollm2");
  EXPECT_NEAR(expected.at("perplexity"), 30.64, 5e-3);
  // two of the eight windows: each takes some ten seconds of two cores in fp64
  expect_losses(Model(folder), windows_of(*load_tokenizer(folder), wikitext_test(), expected), expected, 2);
}

TEST(RealModels, SmolLM2OnTheSample) {
  const auto folder = smollm2_folder();
  if (!std::filesystem::exists(folder))
    GTEST_SKIP() << "not there: " << folder << " (scripts/smollm2_folder.py makes it)";
  const auto expected = recorded("smollm2-sample");
  const std::string text = text_document(std::string(HESPER_SOURCE_DIR) + "/examples/sample.txt");
  expect_model(Model(folder), windows_of(*load_tokenizer(folder), text, expected), expected);
}

}  // namespace
}  // namespace hesper::oracle
