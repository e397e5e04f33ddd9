#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <stdexcept>

#include "commands.h"
#include "flags.h"
#include "hub.h"
#include "text/npy.h"
#include "text/tokenizer.h"

namespace hesper::cli {
namespace {

void run_tokenize(const Flags& flags, const std::string& out) {
  Console console(flags.quiet, flags.json);
  const ModelSource source = find_model("--model", flags.model, flags, ModelPart::tokenizer, console);
  const Text text = read_text(flags, console);
  const auto tokenizer = load_tokenizer(source.path);
  std::vector<int32_t> ids = encode(*tokenizer, source.path, text);
  if (flags.bos == "window") throw std::invalid_argument("--bos window: the stream is not cut into windows here");
  const bool bos = flags.bos != "none" && tokenizer->bos().has_value();
  if (bos) ids.insert(ids.begin(), *tokenizer->bos());
  nlohmann::json event = {{"tokenizer", tokenizer->name()},
                          {"data", text.name},
                          {"count", ids.size()},
                          {"bos", bos ? nlohmann::json(*tokenizer->bos()) : nlohmann::json()},
                          {"ids_sha256", ids_sha256(ids)}};
  if (out.empty()) {
    console.result(fmt::format("{}", fmt::join(ids, " ")));
    event["ids"] = ids;
  } else {
    write_npy(out, at::tensor(ids, at::kInt));
    console.line(fmt::format("{}: {} ids, {} BOS, by the {}", out, ids.size(), bos ? "with" : "no", tokenizer->name()));
    event["file"] = out;
  }
  console.event("result", std::move(event));
}

}  // namespace

Action add_tokenize(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  auto out = std::make_shared<std::string>();
  app.add_option("--model", flags->model, "folder with the tokenizer's files, .gguf file, or ORG/NAME of the hub")
      ->required();
  add_hub(app, *flags);
  add_text(app, *flags);
  app.add_option("--out", *out, ".npy of int32 instead of text on standard output")->check([](const std::string& path) {
    return path.ends_with(".npy") ? "" : "a file that ends in .npy expected";
  });
  add_output(app, *flags);
  return [flags, out](const std::vector<std::string>&) { run_tokenize(*flags, *out); };
}

}  // namespace hesper::cli
