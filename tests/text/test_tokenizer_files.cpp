// Tokenizer files written here by hand: what each switch does, and what hostile ones get.
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "text/bpe.h"
#include "text/mutations.h"
#include "text/pre_tokenizer.h"
#include "text/shared_data.h"
#include "text/tokenizer.h"

namespace hesper {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

// A byte-level tokenizer.json over a, b, c, space and the digits 1 and 2.
json small() {
  return json::parse(R"({"version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 10, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true},
                     {"id": 11, "content": "<s>>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true}],
    "normalizer": null,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Digits", "individual_digits": true},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [10], "tokens": ["<s>"]}}},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
      "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
      "vocab": {"a": 0, "b": 1, "c": 2, "Ġ": 3, "1": 4, "2": 5, "ab": 6, "bc": 7, "Ġab": 8, "12": 9},
      "merges": ["a b", "b c", "Ġ ab", "1 2"]}})");
}

std::unique_ptr<Tokenizer> load(const json& value, const std::string& config = "") {
  return parse_tokenizer_json(value.dump(), config, "t.json");
}

// The refusal after a change of the small tokenizer.
std::string refusal(const std::function<void(json&)>& change) {
  json value = small();
  change(value);
  return error_of<std::runtime_error>([&] { load(value); });
}

TEST(TokenizerJson, merges_by_rank_then_from_the_left) {
  const auto tokenizer = load(small());
  EXPECT_EQ(tokenizer->encode("abc"), (Ids{6, 2}));  // "a b" ranks before "b c"
  EXPECT_EQ(tokenizer->encode("bc abab"), (Ids{7, 8, 6}));
  EXPECT_EQ(tokenizer->encode("12"), (Ids{4, 5}));  // digits stand alone, so "1 2" never merges
  EXPECT_EQ(tokenizer->encode(""), Ids{});
  EXPECT_EQ(tokenizer->vocab_size(), 12);
  EXPECT_EQ(tokenizer->bos(), 10);
  EXPECT_EQ(tokenizer->name(), "byte-level BPE (tokenizer.json)");
}

TEST(TokenizerJson, added_tokens_are_cut_out_first_and_the_longest_wins) {
  const auto tokenizer = load(small());
  EXPECT_EQ(tokenizer->encode("a<s>b<s>>"), (Ids{0, 10, 1, 11}));
  EXPECT_EQ(tokenizer->decode(Ids{8, 10, 4}), " ab<s>1");
}

TEST(TokenizerJson, characters_without_a_token_are_dropped_or_unknown) {
  // As the tokenizers package does: what is left of the word then merges.
  EXPECT_EQ(load(small())->encode("a\u00e9b\xff"), Ids{6});
  json value = small();
  value["model"]["unk_token"] = "c";
  EXPECT_EQ(load(value)->encode("axyb"), (Ids{0, 2, 2, 1}));
  value["model"]["fuse_unk"] = true;
  EXPECT_EQ(load(value)->encode("axyb"), (Ids{0, 2, 1}));
}

TEST(TokenizerJson, ignore_merges_takes_whole_words) {
  json value = small();
  value["model"]["vocab"]["abc"] = 12;
  EXPECT_EQ(load(value)->encode("abc"), (Ids{6, 2}));
  value["model"]["ignore_merges"] = true;
  EXPECT_EQ(load(value)->encode("abc"), Ids{12});
}

TEST(TokenizerJson, merges_may_be_pairs) {
  json value = small();
  value["model"]["merges"] = json::parse(R"([["a", "b"], ["b", "c"], ["Ġ", "ab"], ["1", "2"]])");
  EXPECT_EQ(load(value)->encode("bc ab"), (Ids{7, 8}));
}

TEST(TokenizerJson, the_template_decides_about_bos_then_the_configuration) {
  EXPECT_EQ(load(small(), R"({"add_bos_token": false, "bos_token": "<s>"})")->bos(), 10);
  json value = small();
  value["post_processor"] = nullptr;
  EXPECT_EQ(load(value)->bos(), std::nullopt);
  EXPECT_EQ(load(value, R"({"bos_token": "<s>"})")->bos(), std::nullopt);
  EXPECT_EQ(load(value, R"({"add_bos_token": true, "bos_token": {"content": "<s>"}})")->bos(), 10);
  EXPECT_EQ(error_of<std::runtime_error>([&] { load(value, R"({"add_bos_token": true, "bos_token": "<x>"})"); }),
            "t.json: bos_token '<x>' is not in the vocabulary");
  EXPECT_EQ(error_of<std::runtime_error>([&] { load(value, R"({"add_eos_token": true})"); }),
            "t.json's tokenizer_config: add_eos_token = true is not supported");
}

TEST(TokenizerJson, what_is_not_supported_is_refused_by_name) {
  const auto set = [](const char* pointer, json value) {
    return refusal([&](json& t) { t[json::json_pointer(pointer)] = std::move(value); });
  };
  EXPECT_EQ(set("/normalizer", {{"type", "Lowercase"}}),
            "t.json.normalizer: the normalizer Lowercase is not supported");
  EXPECT_EQ(set("/normalizer", {{"type", "NFC"}, {"what", 1}}), "t.json.normalizer: 'what' is not supported");
  EXPECT_EQ(set("/pre_tokenizer/pretokenizers/0", {{"type", "Whitespace"}}),
            "t.json.pre_tokenizer.pretokenizers[0]: the pre-tokenizer Whitespace is not supported");
  EXPECT_EQ(set("/pre_tokenizer/pretokenizers/0/what", 1),
            "t.json.pre_tokenizer.pretokenizers[0]: 'what' is not supported");
  EXPECT_EQ(set("/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"String", "a"}}}, {"behavior", "Other"}}),
            "t.json.pre_tokenizer: the split behavior Other is not supported");
  EXPECT_EQ(set("/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"Regex", "\\w+"}}}, {"behavior", "Isolated"}}),
            "t.json.pre_tokenizer.pattern: the escape \\w is not supported in the pattern \\w+");
  EXPECT_EQ(set("/post_processor", {{"type", "RobertaProcessing"}}),
            "t.json.post_processor: the post-processor RobertaProcessing is not supported");
  EXPECT_EQ(set("/model/type", "WordPiece"), "t.json.model: the model WordPiece is not supported (BPE, Unigram are)");
  EXPECT_EQ(set("/model/dropout", 0.1), "t.json.model: dropout is not supported");
  EXPECT_EQ(set("/model/end_of_word_suffix", "</w>"), "t.json.model: end_of_word_suffix is not supported");
  EXPECT_EQ(set("/model/what", 0), "t.json.model: 'what' is not supported");
  EXPECT_EQ(set("/extra", 0), "t.json: 'extra' is not supported");
  EXPECT_EQ(set("/added_tokens/0/single_word", true), "t.json.added_tokens[0]: single_word tokens are not supported");
  EXPECT_EQ(refusal([](json& t) {
              t["post_processor"]["single"].push_back({{"SpecialToken", {{"id", "<s>"}}}});
            }),
            "t.json.post_processor.single: the token <s> behind the text is not supported");
  // A decoder only shows text, so it is refused when text is asked for.
  json value = small();
  value["decoder"] = {{"type", "WordPiece"}};
  EXPECT_EQ(load(value)->encode("a"), Ids{0});
  EXPECT_EQ(error_of<std::runtime_error>([&] { load(value)->decode(Ids{0}); }),
            "byte-level BPE (tokenizer.json): the decoder WordPiece is not supported");
}

TEST(TokenizerJson, normal_forms_and_patterns_of_the_normalizer) {
  const auto ids_with = [](json normalizer, const std::string& text) {
    json value = small();
    value["normalizer"] = std::move(normalizer);
    value["model"]["vocab"].update({{"Ã", 12}, {"©", 13}, {"Ì", 14}, {"ģ", 15}, {"e", 16}});
    return load(value)->encode(text);
  };
  EXPECT_EQ(ids_with({{"type", "NFC"}}, "e\u0301"), (Ids{12, 13}));  // U+00E9, two bytes
  EXPECT_EQ(ids_with({{"type", "NFD"}}, "\u00e9"), (Ids{16, 14, 15}));
  EXPECT_EQ(ids_with({{"type", "NFKC"}}, "\u00b9\u00b2"), (Ids{4, 5}));  // superscripts
  EXPECT_EQ(ids_with({{"type", "Strip"}, {"strip_left", false}, {"strip_right", true}}, " a \n"), (Ids{3, 0}));
  EXPECT_EQ(ids_with({{"type", "Replace"}, {"pattern", {{"Regex", "[xy]+"}}}, {"content", "b"}}, "axyx y"),
            (Ids{6, 3, 1}));
  EXPECT_EQ(ids_with({{"type", "NFC"}}, ""), Ids{});
}

TEST(TokenizerJson, splits_that_join_matches_to_their_neighbours) {
  const auto words = [](SplitStep::Keep keep, bool invert) {
    return pre_tokenize({SplitStep{Regex("a"), keep, invert}}, "aabbab", true);
  };
  using Keep = SplitStep::Keep;
  using Words = std::vector<std::string>;
  EXPECT_EQ(words(Keep::both, false), (Words{"a", "a", "bb", "a", "b"}));
  EXPECT_EQ(words(Keep::with_previous, false), (Words{"a", "a", "bba", "b"}));
  EXPECT_EQ(words(Keep::with_previous, true), (Words{"a", "abb", "ab"}));
  EXPECT_EQ(words(Keep::with_next, false), (Words{"a", "abb", "ab"}));
  EXPECT_EQ(words(Keep::with_next, true), (Words{"a", "a", "bba", "b"}));
  EXPECT_EQ(words(Keep::runs, false), (Words{"aa", "bb", "a", "b"}));
}

// Scores, unknown characters and bytes; the numbers are those of the tokenizers package.
TEST(TokenizerJson, unigram_takes_the_best_sum_of_scores) {
  json value = small();
  value["added_tokens"] = json::array();
  value["post_processor"] = nullptr;
  value["pre_tokenizer"] = nullptr;
  value["model"] = {
      {"type", "Unigram"},
      {"unk_id", 0},
      {"byte_fallback", false},
      {"vocab", json::parse(R"([["<unk>", 0], ["a", -1], ["b", -1.5], ["ab", -2.6], ["ba", -2.4], ["<0x78>", -9]])")}};
  const auto tokenizer = load(value);
  EXPECT_EQ(tokenizer->name(), "Unigram (tokenizer.json)");
  EXPECT_EQ(tokenizer->encode("ab"), (Ids{1, 2}));
  EXPECT_EQ(tokenizer->encode("aba"), (Ids{1, 4}));
  EXPECT_EQ(tokenizer->encode("axxb"), (Ids{1, 0, 2}));  // unknown neighbours are one
  value["model"]["byte_fallback"] = true;
  EXPECT_EQ(load(value)->encode("axxb"), (Ids{1, 5, 5, 2}));
  EXPECT_EQ(load(value)->encode("axyb"), (Ids{1, 0, 2}));  // no token for every byte
  value["model"].erase("unk_id");
  EXPECT_EQ(error_of<std::runtime_error>([&] { load(value)->encode("x"); }),
            "a character without a token, and the model has no unk_id");
  const auto broken = [&](const char* vocab) {
    value["model"]["vocab"] = json::parse(vocab);
    return error_of<std::runtime_error>([&] { load(value); });
  };
  EXPECT_EQ(broken(R"([["a", -1], ["a", -2]])"), "t.json.model: vocab[1] is there twice");
  EXPECT_EQ(broken(R"([["a", "b"]])"), "t.json.model: vocab[0] is not a piece and its score");
  value["model"]["unk_id"] = 5;
  EXPECT_EQ(broken(R"([["a", -1]])"), "t.json.model: unk_id 5 is outside the 1 pieces");
}

TEST(TokenizerJson, damaged_files_are_refused_in_one_line) {
  const auto set = [](const char* pointer, json value) {
    return refusal([&](json& t) { t[json::json_pointer(pointer)] = std::move(value); });
  };
  EXPECT_EQ(set("/model/vocab/a", "0"), "t.json.model.vocab: 'a' is not a whole number that fits 64 bits");
  EXPECT_EQ(set("/model/vocab/a", -1), "t.json.model.vocab: id -1 is outside 0..16777215");
  EXPECT_EQ(set("/model/vocab/a", 4294967296), "t.json.model.vocab: id 4294967296 is outside 0..16777215");
  EXPECT_EQ(set("/model/vocab/a", 18446744073709551615u),
            "t.json.model.vocab: 'a' is not a whole number that fits 64 bits");
  EXPECT_EQ(set("/added_tokens/0/id", 16777216), "t.json.added_tokens[0]: id 16777216 is outside 0..16777215");
  EXPECT_TRUE(set("/added_tokens/0/id", 0).ends_with("both have id 0"));
  EXPECT_EQ(set("/added_tokens/0/content", "a"), "t.json: added token 'a' has id 10, but 0 in the vocabulary");
  EXPECT_EQ(set("/model/merges/0", "a x"),
            "t.json.model: merge 0 ('a' 'x') needs the token 'x', which is not in the vocabulary");
  EXPECT_EQ(set("/model/merges/0", "a a"),
            "t.json.model: merge 0 ('a' 'a') needs the token 'aa', which is not in the vocabulary");
  for (const json& merge : {json("ab"), json("a b c"), json(3), json::array({"a"}), json::array({"a", 1})}) {
    EXPECT_EQ(set("/model/merges/1", merge), "t.json.model: merges[1] is not a pair of tokens");
  }
  EXPECT_EQ(set("/model/unk_token", "?"), "t.json.model: unk_token '?' is not in the vocabulary");
  EXPECT_EQ(set("/model/vocab", json::array()), "t.json.model.vocab: a JSON object expected");
  EXPECT_EQ(set("/model", nullptr), "t.json: 'model' is missing");
  EXPECT_EQ(set("/post_processor/special_tokens", json::object()),
            "t.json.post_processor.special_tokens: '<s>' is missing");
  EXPECT_EQ(set("/post_processor/special_tokens/<s>/ids", json::array({77})),
            "t.json: BOS has id 77, which no token has");
  EXPECT_EQ(set("/post_processor/special_tokens/<s>/ids", json::array({1, 2})),
            "t.json.post_processor.special_tokens.<s>: 2 ids for one special token are not supported");
  EXPECT_TRUE(refusal([](json& t) {
                json nested = t["pre_tokenizer"];
                for (int i = 0; i < 20; ++i) nested = {{"type", "Sequence"}, {"pretokenizers", json::array({nested})}};
                t["pre_tokenizer"] = nested;
              }).ends_with("more than 8 Sequences inside one another"));
}

// Every truncation and thousands of byte changes: an exception that names the file, or a tokenizer that works.
TEST(TokenizerJson, no_mutation_crashes) {
  const std::string good = small().dump();
  const auto attempt = [](const std::string& text) {
    try {
      const auto tokenizer = parse_tokenizer_json(text, "", "t.json");
      tokenizer->encode("abc 12 ab<s>>\xff");
      return true;
    } catch (const std::runtime_error& error) {
      EXPECT_TRUE(std::string(error.what()).starts_with("t.json")) << error.what();
      return false;
    }
  };
  for (size_t n = 0; n < good.size(); ++n) EXPECT_FALSE(attempt(good.substr(0, n))) << n;
  Mutations mutations;
  int accepted = 0;
  for (int round = 0; round < 5000; ++round) accepted += attempt(mutations.of(good, 2, 127));
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, 5000);
}

TEST(VocabAndMerges, bos_and_special_tokens_come_from_the_configuration) {
  const std::string vocab = R"({"a": 0, "b": 1, "ab": 2, "</s>": 3, "Ġ": 4})", merges = "#version: 0.2\r\na b\r\n\n";
  const auto load_with = [&](const std::string& config) {
    return parse_vocab_and_merges(vocab, merges, config, "folder");
  };
  EXPECT_EQ(load_with("")->bos(), std::nullopt);
  EXPECT_EQ(load_with("")->encode("ab"), Ids{2});
  EXPECT_EQ(load_with(R"({"bos_token": "</s>"})")->bos(), std::nullopt);
  const auto opt = load_with(R"({"bos_token": {"content": "</s>"}, "add_bos_token": true, "add_prefix_space": true})");
  EXPECT_EQ(opt->bos(), 3);
  EXPECT_EQ(opt->encode("ab</s>ab"), (Ids{4, 2, 3, 4, 2}));
  const auto added = load_with(R"({"added_tokens_decoder": {"9": {"content": "<x>", "rstrip": true}}})");
  EXPECT_EQ(added->encode("a<x> \u3000 b"), (Ids{0, 9, 1}));
  EXPECT_EQ(added->vocab_size(), 10);

  const auto error = [&](const std::string& v, const std::string& m, const std::string& c) {
    return error_of<std::runtime_error>([&] { parse_vocab_and_merges(v, m, c, "folder"); });
  };
  EXPECT_EQ(error(vocab, merges, R"({"add_bos_token": true, "bos_token": "<s>"})"),
            "folder: vocab.json: bos_token '<s>' is not in the vocabulary");
  EXPECT_EQ(error(vocab, "a b\nab", ""), "folder: merges line 2 is not a pair of tokens");
  EXPECT_EQ(error(vocab, "a b c", ""), "folder: merges line 1 is not a pair of tokens");
  EXPECT_EQ(error(vocab, "b a", ""), "folder: merge 0 ('b' 'a') needs the token 'ba', which is not in the vocabulary");
  EXPECT_EQ(error(R"({"a": 0.5})", "", ""), "folder: vocab.json: 'a' is not a whole number that fits 64 bits");
  EXPECT_EQ(error(R"({"a": 99999999})", "", ""), "folder: vocab.json: token 'a' has id 99999999, outside 0..16777215");
  EXPECT_EQ(error("[]", "", ""), "folder: vocab.json: a JSON object expected");
  EXPECT_TRUE(error("{\"a\": ", "", "").starts_with("folder: vocab.json: not valid JSON: "));
  EXPECT_TRUE(error(vocab, merges, "nonsense").starts_with("folder: tokenizer_config.json: not valid JSON: "));
  EXPECT_EQ(error(vocab, merges, R"({"added_tokens_decoder": {"x": "y"}})"),
            "folder: tokenizer_config.json.added_tokens_decoder: 'x' is not an id");
}

TEST(Sentencepiece, bos_by_the_configuration) {
  HESPER_NEEDS("tokenizers/tok105.model");
  const std::string model = read_file(shared_data("tokenizers/tok105.model"));
  EXPECT_EQ(parse_sentencepiece(model, "", "m")->bos(), 1);
  EXPECT_EQ(parse_sentencepiece(model, R"({"add_bos_token": false})", "m")->bos(), std::nullopt);
  EXPECT_EQ(error_of<std::runtime_error>([&] { parse_sentencepiece(model, R"({"bos_token": "<bos>"})", "m"); }),
            "m: bos_token '<bos>' is not in the model");
  const auto tokenizer = parse_sentencepiece(model, "", "m");
  const Ids once = tokenizer->encode("a"), twice = tokenizer->encode("a</s>a");
  Ids expected = once;
  expected.push_back(2);
  expected.insert(expected.end(), once.begin(), once.end());
  EXPECT_EQ(twice, expected);
  EXPECT_EQ(error_of<std::invalid_argument>([&] { tokenizer->decode(Ids{105}); }),
            "no token has id 105 (vocabulary 105)");
}

TEST(Sentencepiece, no_mutation_crashes) {
  HESPER_NEEDS("tokenizers/tok105.model");
  const std::string good = read_file(shared_data("tokenizers/tok105.model"));
  const auto attempt = [](const std::string& model) {
    try {
      parse_sentencepiece(model, "", "m")->encode("Once upon \xff a time</s>");
    } catch (const std::runtime_error&) {
    }
  };
  for (size_t n = 0; n < good.size(); ++n) attempt(good.substr(0, n));
  Mutations mutations;
  for (int round = 0; round < 5000; ++round) attempt(mutations.of(good, 3));
}

TEST(Tiktoken, damaged_lines) {
  const auto error = [](const std::string& lines) {
    return error_of<std::runtime_error>([&] { parse_tiktoken(lines, "m"); });
  };
  EXPECT_EQ(error("IQ== 0\nIg== 1\n"), "m: 2 tiktoken ranks; only Llama 3's 128000 are supported");
  for (const char* line : {"IQ== 2", "IQ==", "I!== 1", "IQ= 1", " 1", "IQ== 99999999999", "IQ== -1", "IQ== 1"}) {
    EXPECT_EQ(error(std::string("IQ== 0\n") + line), "m: line 2 is not base64 text and the next rank 1") << line;
  }
}

TEST(LoadTokenizer, one_clear_line_when_there_is_none) {
  const TemporaryFolder folder;
  const std::string expected =
      folder.path.string() +
      ": no tokenizer: looked for tokenizer.json, vocab.json with merges.txt, tokenizer.model, one .gguf";
  EXPECT_EQ(error_of<std::runtime_error>([&] { load_tokenizer(folder.path); }), expected);
  folder.write("vocab.json", "{}");
  EXPECT_EQ(error_of<std::runtime_error>([&] { load_tokenizer(folder.path); }), expected);
  folder.write("tokenizer.model", "");
  EXPECT_EQ(error_of<std::runtime_error>([&] { load_tokenizer(folder.path); }),
            (folder / "tokenizer.model").string() + ": 0 tiktoken ranks; only Llama 3's 128000 are supported");
}

TEST(LoadTokenizer, tokenizer_json_comes_first) {
  const TemporaryFolder folder;
  folder.write("vocab.json", R"({"x": 0})");
  folder.write("merges.txt", "");
  EXPECT_EQ(load_tokenizer(folder.path)->name(), "byte-level BPE (vocab.json, merges.txt)");
  folder.write("tokenizer.json", small().dump());
  EXPECT_EQ(load_tokenizer(folder.path)->name(), "byte-level BPE (tokenizer.json)");
}

TEST(Regex, white_space_is_unicodes_own) {
  // PCRE2's \s would take U+180E along.
  const Regex space("\\s+"), other("\\S+"), both("[^\\s\\p{L}]");
  EXPECT_EQ(space.find_all("a \u3000\u0085\u180eb").size(), 1u);
  EXPECT_EQ(space.find_all("a \u3000\u0085\u180eb")[0].end, 7u);
  EXPECT_EQ(other.find_all("a \u180eb").size(), 2u);
  EXPECT_EQ(both.find_all("a \u180eb").size(), 1u);
}

TEST(Regex, empty_matches_move_on) {
  EXPECT_EQ(Regex("a*").find_all("b\u00e9aab").size(), 4u);
  EXPECT_TRUE(Regex("a").find_all("").empty());
}

TEST(Regex, what_means_something_else_in_pcre2_is_refused) {
  for (const char* pattern : {"\\w", "\\h", "\\b", "^a", "a$", "[a&&b]", "[[a]b]", "[]a]", "[a", "\\", "a\\", "\\x41",
                              "[\\S]", "(", "a{2,1}", "\\p{Nothing}", "\\C", "\\Q", "*"}) {
    EXPECT_THROW(Regex{pattern}, std::runtime_error) << pattern;
  }
  EXPECT_THROW(Regex(std::string(100000, 'a')), std::runtime_error);
}

// A pattern that backtracks without end is stopped by PCRE2's match limit.
TEST(Regex, a_runaway_pattern_ends_in_an_error) {
  const std::string text = std::string(200, 'a') + "bc";
  EXPECT_TRUE(error_of<std::runtime_error>([&] {
                Regex("(?:a|aa)+c").find_all(text);
              }).starts_with("the pattern (?:a|aa)+c failed at byte 0 of the text: match limit exceeded"));
}

TEST(PreTokenizer, every_byte_has_its_own_character) {
  std::string bytes;
  for (int b = 0; b < 256; ++b) bytes += static_cast<char>(b);
  const std::string text = byte_level_encode(bytes);
  EXPECT_EQ(text.size(), 2 * 256u - 94u);  // the 94 printable ASCII characters stay one byte
  EXPECT_EQ(byte_level_decode(text), bytes);
  EXPECT_EQ(byte_level_encode(" \n"), "ĠĊ");
  EXPECT_EQ(byte_level_decode("日"), std::nullopt);
}

}  // namespace
}  // namespace hesper
