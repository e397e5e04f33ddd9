#include "text/tokenizer.h"

#include <fmt/format.h>

#include <stdexcept>

#include "files/gguf.h"
#include "files/mapped_file.h"
#include "files/read_file.h"

namespace hesper {

namespace {

std::unique_ptr<Tokenizer> load_gguf(const std::string& path) {
  const MappedFile file(path);
  return parse_gguf_tokenizer(parse_gguf(file.bytes(), path), path);
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& folder) {
  if (folder.extension() == ".gguf" && std::filesystem::is_regular_file(folder)) return load_gguf(folder.string());
  constexpr size_t kLimit = size_t{1} << 28;  // bytes of one file
  const auto has = [&](const char* file) { return std::filesystem::exists(folder / file); };
  const auto read = [&](const char* file) { return read_file(folder / file, kLimit); };
  const std::string config = has("tokenizer_config.json") ? read("tokenizer_config.json") : "";
  if (has("tokenizer.json")) {
    return parse_tokenizer_json(read("tokenizer.json"), config, (folder / "tokenizer.json").string());
  }
  if (has("vocab.json") && has("merges.txt")) {
    return parse_vocab_and_merges(read("vocab.json"), read("merges.txt"), config, folder.string());
  }
  if (has("tokenizer.model")) {
    const std::string model = read("tokenizer.model");
    const std::string name = (folder / "tokenizer.model").string();
    // A serialised sentencepiece model starts with field 1, pieces: 0x0A. tiktoken's lines start with base64.
    return model.starts_with('\n') ? parse_sentencepiece(model, config, name) : parse_tiktoken(model, name);
  }
  if (const std::string gguf = std::filesystem::is_directory(folder) ? only_gguf_file(folder.string()) : "";
      !gguf.empty()) {
    return load_gguf(gguf);
  }
  throw std::runtime_error(
      fmt::format("{}: no tokenizer: looked for tokenizer.json, vocab.json with merges.txt, tokenizer.model, one .gguf",
                  folder.string()));
}

}  // namespace hesper
