#pragma once
// Ids of long texts, kept between runs: BPE of a corpus takes longer than reading its ids.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace hesper {

inline constexpr size_t least_cached_bytes = 256 << 10;  // of text; shorter ones are encoded each time

/// tokenizer.encode(text), out of FOLDER/{tokenizer}-{text}.npy where an earlier run of this very program left it
/// there, and left there where it can be written. `model` is the folder that the tokenizer was loaded from; its part of
/// the name is the sha256 of its tokenizer's files and of this program's age. A .gguf file's ids are not kept.
std::vector<int32_t> encode_cached(const Tokenizer& tokenizer, const std::filesystem::path& model,
                                   std::string_view text, const std::filesystem::path& folder);

}  // namespace hesper
