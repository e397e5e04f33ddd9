// Hugging Face's tokenizer.json with a BPE or Unigram model. What is not handled here is refused by name.
#include <fmt/format.h>

#include <map>
#include <stdexcept>

#include "text/json_fields.h"
#include "text/parts_tokenizer.h"
#include "text/tokenizer_config.h"

namespace hesper {
namespace {

constexpr int kMaxDepth = 8;  // Sequences inside Sequences

// The parts of a Sequence, or the one part itself, in order.
std::vector<JsonFields> flatten(const JsonFields& part, const char* list, int depth = 0) {
  if (depth > kMaxDepth) part.fail("more than 8 Sequences inside one another");
  if (part.string("type") != "Sequence") return {part};
  part.allow({"type", list});
  std::vector<JsonFields> parts;
  size_t n = 0;
  for (const nlohmann::json& value : part.array(list)) {
    const JsonFields inner(value, fmt::format("{}.{}[{}]", part.where(), list, n++));
    for (JsonFields& leaf : flatten(inner, list, depth + 1)) parts.push_back(std::move(leaf));
  }
  return parts;
}

int32_t read_id(const JsonFields& fields, const std::string& key) {
  const int64_t id = fields.integer(key);
  if (id < 0 || id >= kMaxTokenId) fields.fail(fmt::format("id {} is outside 0..{}", id, kMaxTokenId - 1));
  return static_cast<int32_t>(id);
}

std::vector<AddedToken> read_added_tokens(const JsonFields& top) {
  std::vector<AddedToken> tokens;
  if (!top.has("added_tokens")) return tokens;
  for (const nlohmann::json& value : top.array("added_tokens")) {
    const JsonFields fields(value, fmt::format("{}.added_tokens[{}]", top.where(), tokens.size()));
    fields.allow({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    if (fields.boolean_or("single_word", false)) fields.fail("single_word tokens are not supported");
    tokens.push_back({read_id(fields, "id"), fields.string("content"), fields.boolean_or("lstrip", false),
                      fields.boolean_or("rstrip", false), fields.boolean_or("normalized", false)});
  }
  return tokens;
}

// A Replace's pattern must be a plain, non-empty string.
std::string plain_pattern(const JsonFields& step) {
  const JsonFields pattern = step.object("pattern");
  pattern.allow({"String"});
  if (pattern.string("String").empty()) pattern.fail("an empty pattern");
  return pattern.string("String");
}

Regex read_pattern(const JsonFields& step) {
  const JsonFields pattern = step.object("pattern");
  pattern.allow({"Regex", "String"});
  try {
    if (pattern.has("Regex")) return Regex(pattern.string("Regex"));
    std::string quoted;
    for (const char c : pattern.string("String")) {
      if (c > ' ' && c < 127 && !std::isalnum(static_cast<unsigned char>(c))) quoted += '\\';
      quoted += c;
    }
    return Regex(quoted);
  } catch (const std::runtime_error& error) {
    pattern.fail(error.what());
  }
}

std::vector<NormalizerStep> read_normalizer(const JsonFields& top) {
  using Form = NormalFormStep::Form;
  static const std::map<std::string, Form> forms = {
      {"NFC", Form::nfc}, {"NFD", Form::nfd}, {"NFKC", Form::nfkc}, {"NFKD", Form::nfkd}};
  std::vector<NormalizerStep> steps;
  if (!top.has("normalizer")) return steps;
  for (const JsonFields& step : flatten(top.object("normalizer"), "normalizers")) {
    const std::string type = step.string("type");
    if (const auto form = forms.find(type); form != forms.end()) {
      step.allow({"type"});
      steps.emplace_back(NormalFormStep{form->second});
    } else if (type == "Prepend") {
      step.allow({"type", "prepend"});
      steps.emplace_back(PrependStep{step.string("prepend")});
    } else if (type == "Strip") {
      step.allow({"type", "strip_left", "strip_right"});
      steps.emplace_back(StripStep{step.boolean_or("strip_left", true), step.boolean_or("strip_right", true)});
    } else if (type == "Replace") {
      step.allow({"type", "pattern", "content"});
      if (step.object("pattern").has("Regex"))
        steps.emplace_back(ReplacePatternStep{read_pattern(step), step.string("content")});
      else
        steps.emplace_back(ReplaceStep{plain_pattern(step), step.string("content")});
    } else {
      step.fail(fmt::format("the normalizer {} is not supported", type));
    }
  }
  return steps;
}

SplitStep read_split(const JsonFields& step) {
  step.allow({"type", "pattern", "behavior", "invert"});
  const std::string behavior = step.string("behavior");
  const bool invert = step.boolean_or("invert", false);
  using Keep = SplitStep::Keep;
  if (behavior == "Isolated") return {read_pattern(step), Keep::both};
  if (behavior == "Removed") return {read_pattern(step), invert ? Keep::matches : Keep::gaps};
  if (behavior == "MergedWithPrevious") return {read_pattern(step), Keep::with_previous, invert};
  if (behavior == "MergedWithNext") return {read_pattern(step), Keep::with_next, invert};
  if (behavior == "Contiguous") return {read_pattern(step), Keep::runs, invert};
  step.fail(fmt::format("the split behavior {} is not supported", behavior));
}

MetaspaceStep read_metaspace(const JsonFields& step) {
  step.allow({"type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"});
  MetaspaceStep metaspace;
  metaspace.replacement = step.string_or("replacement", "\u2581");
  if (metaspace.replacement.empty()) step.fail("an empty replacement");
  metaspace.split = step.boolean_or("split", true);
  const bool prefix = step.boolean_or("add_prefix_space", true);
  const std::string scheme = step.string_or("prepend_scheme", prefix ? "always" : "never");
  if (scheme == "always") {
    metaspace.prepend = MetaspaceStep::Prepend::always;
  } else if (scheme == "first") {
    metaspace.prepend = MetaspaceStep::Prepend::first;
  } else if (scheme == "never") {
    metaspace.prepend = MetaspaceStep::Prepend::never;
  } else {
    step.fail(fmt::format("the prepend_scheme {} is not supported", scheme));
  }
  return metaspace;
}

std::vector<PreTokenizerStep> read_pre_tokenizer(const JsonFields& top) {
  std::vector<PreTokenizerStep> steps;
  if (!top.has("pre_tokenizer")) return steps;
  for (const JsonFields& step : flatten(top.object("pre_tokenizer"), "pretokenizers")) {
    const std::string type = step.string("type");
    if (type == "Split") {
      steps.push_back(read_split(step));
    } else if (type == "Digits") {
      step.allow({"type", "individual_digits"});
      steps.push_back(SplitStep{Regex(step.boolean_or("individual_digits", false) ? "\\p{N}" : "\\p{N}+")});
    } else if (type == "ByteLevel") {
      step.allow({"type", "add_prefix_space", "trim_offsets", "use_regex"});
      ByteLevelStep byte_level{step.boolean_or("add_prefix_space", true), std::nullopt};
      if (step.boolean_or("use_regex", true)) byte_level.pattern = gpt2_pattern();
      steps.push_back(byte_level);
    } else if (type == "WhitespaceSplit") {
      step.allow({"type"});
      steps.push_back(SplitStep{Regex("\\s"), SplitStep::Keep::gaps});
    } else if (type == "Metaspace") {
      steps.push_back(read_metaspace(step));
    } else {
      step.fail(fmt::format("the pre-tokenizer {} is not supported", type));
    }
  }
  return steps;
}

Unigram read_unigram(const JsonFields& model) {
  model.allow({"type", "unk_id", "vocab", "byte_fallback"});
  UnigramOptions options;
  options.byte_fallback = model.boolean_or("byte_fallback", false);
  if (model.has("unk_id")) options.unk_id = read_id(model, "unk_id");
  std::vector<std::pair<std::string, double>> pieces;
  pieces.reserve(model.array("vocab").size());
  for (const nlohmann::json& piece : model.array("vocab")) {
    if (!piece.is_array() || piece.size() != 2 || !piece[0].is_string() || !piece[1].is_number())
      model.fail(fmt::format("vocab[{}] is not a piece and its score", pieces.size()));
    pieces.emplace_back(piece[0].get<std::string>(), piece[1].get<double>());
  }
  if (static_cast<int64_t>(pieces.size()) > kMaxTokenId)
    model.fail(fmt::format("{} pieces, more than {}", pieces.size(), kMaxTokenId));
  try {
    return Unigram(pieces, options);
  } catch (const std::runtime_error& error) {
    model.fail(error.what());
  }
}

Bpe read_bpe(const JsonFields& model) {
  model.allow({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
               "byte_fallback", "ignore_merges", "vocab", "merges"});
  if (model.has("dropout") && model.at("dropout") != 0.0) model.fail("dropout is not supported");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.string_or(key, "").empty()) model.fail(fmt::format("{} is not supported", key));
  }
  BpeOptions options;
  options.fuse_unk = model.boolean_or("fuse_unk", false);
  options.byte_fallback = model.boolean_or("byte_fallback", false);
  options.ignore_merges = model.boolean_or("ignore_merges", false);
  if (model.has("unk_token")) options.unk_token = model.string("unk_token");

  const JsonFields vocab = model.object("vocab");
  Vocabulary vocabulary;
  vocabulary.reserve(model.at("vocab").size());
  for (const auto& [token, id] : model.at("vocab").items()) vocabulary[token] = read_id(vocab, token);

  std::vector<Bpe::Pair> merges;
  merges.reserve(model.array("merges").size());
  for (const nlohmann::json& merge : model.array("merges")) {
    const auto fail = [&] { model.fail(fmt::format("merges[{}] is not a pair of tokens", merges.size())); };
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) fail();
      merges.emplace_back(text.substr(0, space), text.substr(space + 1));
    } else {
      if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string()) fail();
      merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
    }
  }
  try {
    return Bpe(std::move(vocabulary), merges, std::move(options));
  } catch (const std::runtime_error& error) {
    model.fail(error.what());
  }
}

WordModel read_model(const JsonFields& model) {
  // Older files do not say: a BPE has merges, a Unigram's vocabulary is a list.
  const std::string type = model.string_or("type", model.has("merges") ? "BPE" : "");
  if (type == "BPE") return read_bpe(model);
  if (type == "Unigram") return read_unigram(model);
  model.fail(fmt::format("the model {} is not supported (BPE, Unigram are)", type));
}

// The one special token before the text.
std::optional<int32_t> read_template(const JsonFields& processor) {
  processor.allow({"type", "single", "pair", "special_tokens"});
  std::optional<int32_t> bos;
  bool text_seen = false;
  for (const nlohmann::json& value : processor.array("single")) {
    const JsonFields piece(value, processor.where() + ".single");
    piece.allow({"SpecialToken", "Sequence"});
    if (piece.has("Sequence")) {
      if (text_seen) piece.fail("a text that stands twice is not supported");
      text_seen = true;
      continue;
    }
    const std::string token = piece.object("SpecialToken").string("id");
    if (text_seen) piece.fail(fmt::format("the token {} behind the text is not supported", token));
    if (bos) piece.fail(fmt::format("a second token {} before the text is not supported", token));
    const JsonFields entry = processor.object("special_tokens").object(token);
    const nlohmann::json& ids = entry.array("ids");
    if (ids.size() != 1) entry.fail(fmt::format("{} ids for one special token are not supported", ids.size()));
    const nlohmann::json wrapped = {{"ids", ids[0]}};
    bos = read_id(JsonFields(wrapped, entry.where()), "ids");
  }
  if (!text_seen) processor.fail("the template has no text");
  return bos;
}

struct PostProcessor {
  bool decides = false;  // a template is there
  std::optional<int32_t> bos;
};

PostProcessor read_post_processor(const JsonFields& top) {
  PostProcessor result;
  if (!top.has("post_processor")) return result;
  for (const JsonFields& step : flatten(top.object("post_processor"), "processors")) {
    const std::string type = step.string("type");
    if (type == "TemplateProcessing") {
      if (result.decides) step.fail("a second template is not supported");
      result = {true, read_template(step)};
    } else if (type != "ByteLevel") {  // ByteLevel moves offsets only
      step.fail(fmt::format("the post-processor {} is not supported", type));
    }
  }
  return result;
}

// Decoding serves to show text, so an unknown decoder is refused when it is asked for.
void read_decoder(const JsonFields& top, TokenizerParts& parts) {
  using Decoder = TokenizerParts::Decoder;
  parts.decoder = Decoder::unsupported;
  parts.decoder_name = "null";
  if (!top.has("decoder")) return;
  for (const JsonFields& step : flatten(top.object("decoder"), "decoders")) {
    const std::string type = step.string("type");
    if (type == "ByteLevel") {
      parts.decoder = Decoder::byte_level;
    } else if (type == "Metaspace") {
      parts.decoder = Decoder::metaspace;
      parts.strip_leading_space = step.string_or("prepend_scheme", "always") != "never";
    } else if (type == "Replace" && plain_pattern(step) == "\u2581" && step.string("content") == " ") {
      parts.decoder = Decoder::metaspace;
    } else if (type == "Strip" && step.string("content") == " " && step.integer("start") == 1 &&
               step.integer("stop") == 0) {
      parts.strip_leading_space = true;
    } else if (type != "ByteFallback" && type != "Fuse") {
      parts.decoder = Decoder::unsupported;
      parts.decoder_name = type;
      return;
    }
  }
}

}  // namespace

std::unique_ptr<Tokenizer> parse_tokenizer_json(std::string_view text, std::string_view config_text,
                                                std::string_view name) {
  const nlohmann::json json = parse_json_object(text, name);
  const TokenizerConfig config = parse_tokenizer_config(config_text, std::string(name) + "'s tokenizer_config");
  const JsonFields top(json, std::string(name));
  // truncation and padding concern batches of short texts; transformers resets both before every call.
  top.allow({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
             "decoder", "model"});
  TokenizerParts parts{.name = "",
                       .added_tokens = read_added_tokens(top),
                       .normalizer = read_normalizer(top),
                       .pre_tokenizer = read_pre_tokenizer(top),
                       .model = read_model(top.object("model")),
                       .decoder_name = "",
                       .bos = std::nullopt};
  read_decoder(top, parts);
  bool byte_level = false;
  for (const PreTokenizerStep& step : parts.pre_tokenizer) byte_level |= std::holds_alternative<ByteLevelStep>(step);
  parts.name = std::holds_alternative<Unigram>(parts.model)
                   ? "Unigram (tokenizer.json)"
                   : fmt::format("{} BPE (tokenizer.json)", byte_level ? "byte-level" : "character");

  const PostProcessor post = read_post_processor(top);
  parts.bos = post.bos;
  if (!post.decides && config.add_bos_token.value_or(false)) {
    if (!config.bos_token) top.fail("add_bos_token is set, but no bos_token");
    parts.bos = find_token(parts.added_tokens, vocabulary_of(parts.model), *config.bos_token);
    if (!parts.bos) top.fail(fmt::format("bos_token '{}' is not in the vocabulary", *config.bos_token));
  }
  try {
    return std::make_unique<PartsTokenizer>(std::move(parts));
  } catch (const std::runtime_error& error) {
    top.fail(error.what());
  }
}

}  // namespace hesper
