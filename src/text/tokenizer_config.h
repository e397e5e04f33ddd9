#pragma once
// What tokenizer_config.json says about the ids; everything else in it (chat templates, lengths) does not touch them.
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"

namespace hesper {

struct TokenizerConfig {
  std::optional<bool> add_bos_token;
  std::optional<std::string> bos_token;
  bool add_prefix_space = false;
  // Contents of bos, eos, unk, pad and additional special tokens; their ids are the vocabulary's.
  std::vector<AddedToken> special_tokens;
  std::vector<AddedToken> added_tokens;  // added_tokens_decoder, with ids
};

// An empty text is an empty configuration. std::runtime_error for wrong types, and for add_eos_token = true.
TokenizerConfig parse_tokenizer_config(std::string_view text, std::string_view name);

}  // namespace hesper
