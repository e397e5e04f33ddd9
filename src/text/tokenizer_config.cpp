#include "text/tokenizer_config.h"

#include <charconv>

#include "text/bpe.h"
#include "text/json_fields.h"

namespace hesper {
namespace {

// A special token is a plain string or an object with its content.
AddedToken read_token(const nlohmann::json& value, const std::string& where) {
  AddedToken token;
  if (value.is_string()) {
    token.content = value.get<std::string>();
    return token;
  }
  const JsonFields fields(value, where);
  token.content = fields.string("content");
  token.lstrip = fields.boolean_or("lstrip", false);
  token.rstrip = fields.boolean_or("rstrip", false);
  token.normalized = fields.boolean_or("normalized", false);
  if (fields.boolean_or("single_word", false)) fields.fail("single_word tokens are not supported");
  return token;
}

}  // namespace

TokenizerConfig parse_tokenizer_config(std::string_view text, std::string_view name) {
  TokenizerConfig config;
  if (text.empty()) return config;
  const nlohmann::json json = parse_json_object(text, name);
  const JsonFields fields(json, std::string(name));
  if (fields.has("add_bos_token")) config.add_bos_token = fields.boolean_or("add_bos_token", false);
  if (fields.boolean_or("add_eos_token", false)) fields.fail("add_eos_token = true is not supported");
  config.add_prefix_space = fields.boolean_or("add_prefix_space", false);
  const auto where = [&](const std::string& key) { return fields.where() + "." + key; };
  for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
    if (!fields.has(key)) continue;
    const AddedToken token = read_token(fields.at(key), where(key));
    if (std::string_view(key) == "bos_token") config.bos_token = token.content;
    config.special_tokens.push_back(token);
  }
  if (fields.has("additional_special_tokens")) {
    for (const nlohmann::json& value : fields.array("additional_special_tokens")) {
      config.special_tokens.push_back(read_token(value, where("additional_special_tokens")));
    }
  }
  if (fields.has("added_tokens_decoder")) {
    const JsonFields added = fields.object("added_tokens_decoder");
    for (const auto& [key, value] : fields.at("added_tokens_decoder").items()) {
      AddedToken token = read_token(value, added.where() + "." + key);
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
      if (error != std::errc() || end != key.data() + key.size() || token.id < 0 || token.id >= kMaxTokenId) {
        added.fail("'" + key + "' is not an id");
      }
      config.added_tokens.push_back(std::move(token));
    }
  }
  return config;
}

}  // namespace hesper
